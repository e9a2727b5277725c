"""The table of the CamVid benchmark: camvid.json, camvid.md and the logs beside them."""
import json
import statistics
from pathlib import Path
from typing import List, Sequence

from camvid_bench.common import ROOT, UserError, locked, read_json
from camvid_bench.rows import PROFILES
from mmseg_semi.files import write_text

BEGIN, END = '<!-- bench_camvid: table begins, made from camvid.json -->', '<!-- bench_camvid: table ends -->'
PAGE = f'# CamVid benchmark\n\nMade by `python tools/bench_camvid.py --profile PROFILE`.\n\n{BEGIN}\n{END}\n'


def merge_rows(old: Sequence[dict], new: Sequence[dict]) -> List[dict]:
    """A rerun row replaces its older self, the others stay; sorted by profile, labels, method and seed."""
    def key(row):
        return (list(PROFILES).index(row['profile']) if row['profile'] in PROFILES else 99, row['profile'],
                row['labels'], row['method'] != 'supervised', row['method'], row['seed'])

    return sorted({key(row): row for row in [*old, *new]}.values(), key=key)


def _mean(values: Sequence[float], sign: str = '') -> str:
    text = format(statistics.mean(values), f'{sign}.2f')
    return text if len(values) == 1 else f'{text} ± {statistics.stdev(values):.2f}'


def _of(rows: Sequence[dict], what: str) -> str:
    """``teacher / student``, or the one number of a method without a teacher; mean and deviation over seeds."""
    keys = [what] if what in rows[0] else [f'teacher_{what}', f'student_{what}']
    return ' / '.join(_mean([row[key] for row in rows]) for key in keys)


def _last(row: dict) -> float:
    return row['last'] if 'last' in row else row['teacher_last']


def make_table(rows: Sequence[dict]) -> str:
    """The Markdown tables of all rows, one per profile.

    Gains are differences of the last validation, the teacher's where there is one, to the supervised row of the same
    labels and seed; the share of the gap relates their mean to what all 367 labels gain over the same rows, by the
    seeds that there are.
    """
    parts = []
    for profile in dict.fromkeys(row['profile'] for row in rows):
        of_profile = [row for row in rows if row['profile'] == profile]
        supervised = {(row['split'], row['seed']): _last(row) for row in of_profile if row['method'] == 'supervised'}
        ceiling = [last for (split, _), last in supervised.items() if split == 'all']
        steps = ', '.join(f'{n:,}' for n in sorted({row['steps'] for row in of_profile}))
        parts.append(f'### {profile} ({steps} steps)\n\n'
                     '| method | labels | seeds | last mIoU | best mIoU | gain over supervised | share of the gap |\n'
                     '|---|---:|---|---:|---:|---:|---:|')
        for method, split in dict.fromkeys((row['method'], row['split']) for row in of_profile):
            same = [row for row in of_profile if (row['method'], row['split']) == (method, split)]
            pairs = [(_last(row), supervised[split, row['seed']]) for row in same
                     if method != 'supervised' and (split, row['seed']) in supervised]
            gains, share = [last - base for last, base in pairs], '–'
            if pairs and ceiling:
                gap = statistics.mean(ceiling) - statistics.mean(base for _, base in pairs)
                share = f'{100 * statistics.mean(gains) / gap:.0f} %' if gap > 0 else share
            name = 'supervised, all labels' if split == 'all' and method == 'supervised' else method
            parts.append(f'| {name} | {same[0]["labels"]} | {", ".join(str(row["seed"]) for row in same)} '
                         f'| {_of(same, "last")} | {_of(same, "best")} '
                         f'| {_mean(gains, "+") if gains else "–"} '
                         f'| {share} |')
        parts[-1] += '\n'
    return '\n'.join(parts)


def write_report(out: Path, finished: Sequence[tuple]) -> List[dict]:
    """Adds finished rows to ``out``: logs, camvid.json and the table in camvid.md.

    Args:
        out (Path): Folder.
        finished (Sequence[tuple]): ``(content of row.json, trimmed log)``.

    Returns:
        list[dict]: All rows of camvid.json.

    Raises:
        UserError: If camvid.md has lost its markers.
    """
    (out / 'logs').mkdir(parents=True, exist_ok=True)
    with locked(out, wait=True):
        for content, log in finished:
            write_text(out / content['log'], log)
        shown = [dict(content, log=_shown(out / content['log'])) for content, _ in finished]
        rows = merge_rows((read_json(out / 'camvid.json') or {'rows': []})['rows'], shown)
        write_text(out / 'camvid.json', json.dumps(dict(rows=rows), indent=1) + '\n')
        page = (out / 'camvid.md').read_text() if (out / 'camvid.md').is_file() else PAGE
        if not (page.count(BEGIN) == page.count(END) == 1 and page.index(BEGIN) < page.index(END)):
            raise UserError(f'{out / "camvid.md"} must hold the lines\n{BEGIN}\n{END}\nonce each, in this order')
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        write_text(out / 'camvid.md', f'{head}{BEGIN}\n{make_table(rows)}\n{END}{tail}')
    return rows


def _shown(path: Path) -> str:
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
