"""What a row of the CamVid benchmark left behind: scores, time, log."""
import contextlib
import json
import os
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from camvid_bench.common import ROOT, read_json
from camvid_bench.rows import LABELS, Row
from mmseg_semi.files import write_text

# glibc gives large blocks back to the system at every free, and pays for the pages at every allocation: keep them.
ALLOCATOR = {'GLIBC_TUNABLES': 'glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:'
                               'glibc.malloc.top_pad=268435456'}


def attempts(folder: Path) -> List[Path]:
    """mmengine's time-stamped folders of one work dir, oldest first; a resumed row has several."""
    return sorted(path for path in folder.glob('[0-9]*_[0-9]*') if path.is_dir())


def read_scalars(folder: Path) -> List[dict]:
    """All records of a row; of a step that was done twice, those of the later attempt."""
    records: Dict[tuple, dict] = {}
    for attempt in attempts(folder):
        path = attempt / 'vis_data' / 'scalars.json'
        for line in path.read_text().splitlines() if path.is_file() else []:
            with contextlib.suppress(json.JSONDecodeError):  # a killed run may leave half a line
                record = json.loads(line)
                records[('mIoU' in record, record['step'])] = record
    return sorted(records.values(), key=lambda r: (r['step'], 'mIoU' in r))


def scores(records: Sequence[dict], steps: int) -> Optional[dict]:
    """Last and best validation mIoU in percent.

    Args:
        records (Sequence[dict]): From :func:`read_scalars`.
        steps (int): Iterations of the whole row.

    Returns:
        dict or None: ``last`` and ``best``; with a teacher ``teacher_last``, ``teacher_best``, ``student_last`` and
        ``student_best``. None if the last iteration has not been validated.
    """
    curve = [r for r in records if 'mIoU' in r and r['step'] <= steps]
    if not curve or curve[-1]['step'] != steps:
        return None
    semi = 'student/mIoU' in curve[-1]
    result = {}
    for prefix, key in (('teacher_', 'mIoU'), ('student_', 'student/mIoU')) if semi else (('', 'mIoU'), ):
        values = [r[key] for r in curve]
        result.update({f'{prefix}last': round(values[-1], 2), f'{prefix}best': round(max(values), 2)})
    return result


def text_logs(folder: Path) -> List[Path]:
    """mmengine's text logs of a row, oldest first."""
    return [attempt / f'{attempt.name}.log' for attempt in attempts(folder)
            if (attempt / f'{attempt.name}.log').is_file()]


def _stamps(path: Path) -> List[datetime]:
    found = re.findall(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine', path.read_text(errors='replace'), re.MULTILINE)
    return [datetime.strptime(stamp, '%Y/%m/%d %H:%M:%S') for stamp in found]


def seconds(row: Row) -> int:
    """Wall time of a row, all attempts together; of a plan, also that of stages that do not train."""
    stamps = [_stamps(path) for run in row.runs for path in text_logs(run)]
    plan = (read_json(row.dir / 'state.json') or {}).get('stages', {})
    trained = {run.name[3:] for run in row.runs}
    others = [[datetime.strptime(stage[key], '%a %b %d %H:%M:%S %Y') for key in ('started', 'finished')]
              for name, stage in plan.items() if name not in trained and stage['status'] == 'done']
    return round(sum((s[-1] - s[0]).total_seconds() for s in [*stamps, *others] if s))


def trim_log(row: Row) -> str:
    """The lines of a row's logs that are worth keeping: all validations, about 150 training lines, notes, warnings."""
    every = max(100, -(-row.steps // 15000) * 100) if row.steps >= 1000 else 1
    kept = [f'config: {row.config}', f'command: python {shlex.join(row.command)}', f'commit: {_commit()}',
            *(f'environment: {name}={os.environ.get(name, value)}' for name, value in ALLOCATOR.items())]
    for path in (path for run in row.runs for path in text_logs(run)):
        kept.append(f'--- {path.relative_to(row.dir)}' if len(row.runs) > 1 else f'--- {path.name}')
        for line in path.read_text(errors='replace').splitlines():
            train = re.search(r'Iter\(train\) *\[ *(\d+)/', line)
            if train:
                keep = int(train.group(1)) % every == 0
            else:
                keep = ('Iter(val)' in line and 'mIoU' in line) or re.search(
                    r'Teacher: |Prototypes from|The teacher kept|resumed|^ +(Python|PyTorch|CUDA available|GPU \d.*): ',
                    line)
            if keep:
                kept.append(line[:1000])
    return '\n'.join(kept) + '\n'


def _commit() -> str:
    done = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or 'unknown'


def finish(row: Row) -> Optional[dict]:
    """Writes ``row.json`` if the row reached its last validation; returns its content."""
    result = scores(read_scalars(row.runs[-1]), row.steps)
    if result is None:
        return None
    content = dict(method=row.method, labels=LABELS[row.split], split=row.split, profile=row.profile, seed=row.seed,
                   steps=row.steps, **result, config=row.config, command=f'python {shlex.join(row.command)}',
                   log=f'logs/{row.name}.log', seconds=seconds(row))
    write_text(row.dir / 'row.log', trim_log(row))
    write_text(row.dir / 'row.json', json.dumps(content, indent=1))
    return content
