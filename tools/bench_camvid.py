"""Trains the CamVid benchmark and writes its table: one command, continued where it stopped when called again.

    python tools/bench_camvid.py --profile smoke         # a minute: does everything run?
    python tools/bench_camvid.py --profile laptop        # the configs as they are, on any machine
    python tools/bench_camvid.py --profile gpu           # 480x360, 20,000 steps, mixed precision

A row is one training run: method, list of labeled images, seed, profile. Rows land in ``OUT/camvid.json``, their logs
in ``OUT/logs``, and the table between the marker comments of ``OUT/camvid.md`` is made from that file. A row that is
finished is skipped, one that was interrupted resumes from its last checkpoint. On a CPU that other jobs load, rows
side by side with one thread each (``--jobs 2 --threads 1`` on two cores) beat one row with all threads.
"""
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path('checkpoints/efficientnet_lite0.pth')
DEFAULT_DATA = '../shared/data/camvid'

# What a profile changes in the configs. steps: iterations; val: iterations between two validations; scale, crop:
# (width, height) of the images and (height, width) of the crops; None keeps the config's. methods: the default of
# --methods, None is all.
PROFILES = {
    'smoke': dict(steps=10, val=5, scale=None, crop=None, amp=False, methods=['supervised', 'pcr'],
                  splits=['drives_24'],
                  options={'val_dataloader.dataset.indices': 8, 'default_hooks.logger.interval': 1}),
    'laptop': dict(steps=None, val=None, scale=None, crop=None, amp=False, methods=None,
                   splits=['drives_24', 'drives_12'], options={}),
    'gpu': dict(steps=20000, val=1000, scale=(480, 360), crop=(320, 320), amp=True, methods=None,
                splits=['drives_24', 'drives_12'], options={'train_dataloader.num_workers': 8}),
}
LABELS = {'drives_24': 24, 'drives_12': 12, 'all': 367}
# glibc gives large blocks back to the system at every free, and pays for the pages at every allocation: keep them.
ALLOCATOR = {'GLIBC_TUNABLES': 'glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:'
                               'glibc.malloc.top_pad=268435456'}
BEGIN, END = '<!-- bench_camvid: table begins, made from camvid.json -->', '<!-- bench_camvid: table ends -->'
PAGE = f'# CamVid benchmark\n\nMade by `python tools/bench_camvid.py --profile PROFILE`.\n\n{BEGIN}\n{END}\n'


class UserError(Exception):
    """Something the caller has to change; printed without a traceback."""


# ---- what a row is ---------------------------------------------------------------------------------------------------


class Row:
    """One training run.

    Args:
        method (str): What its config's name begins with.
        split (str): A key of ``LABELS``.
        seed (int): ``randomness.seed``.
        profile (str): A key of ``PROFILES``.
        work_dir (Path): Of the whole benchmark.

    Raises:
        UserError: If there is no config for the row.
    """

    def __init__(self, method: str, split: str, seed: int, profile: str, work_dir: Path) -> None:
        self.method, self.split, self.seed, self.profile = method, split, seed, profile
        self.name = f'{profile}_{method}_{split}_seed{seed}'
        self.dir = work_dir / self.name
        name = f'{method}_lite0_camvid_{LABELS[split]}.py'
        found = list(ROOT.glob(f'configs/*/{name}'))
        if not found:
            raise UserError(f'no config {name} for method {method} with {LABELS[split]} labels')
        self.config = found[0].relative_to(ROOT).as_posix()
        cfg = Config.fromfile(ROOT / self.config, import_custom_modules=False)
        options = profile_options(cfg, PROFILES[profile], seed)
        self.flags = ['--cfg-options', *(f'{key}={_plain(value)}' for key, value in options.items())]
        if PROFILES[profile]['amp']:
            self.flags.insert(0, '--amp')
        cfg.merge_from_dict(options)
        self.steps = cfg.train_cfg.max_iters
        cfg.pop('data_root', None)
        self.fingerprint = hashlib.sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).replace(
            os.environ.get('CAMVID_ROOT', DEFAULT_DATA), '').encode()).hexdigest()[:16]

    @property
    def command(self) -> List[str]:
        """Without the interpreter; relative to the repository."""
        folder = os.path.relpath(self.dir, ROOT)
        return ['tools/train.py', self.config, '--work-dir', str(self.dir) if folder.startswith('..') else folder,
                *self.flags]

    @property
    def result(self) -> Optional[dict]:
        """The finished row, or None."""
        return _read_json(self.dir / 'row.json')


def _plain(value) -> str:
    return '(' + ','.join(map(str, value)) + ')' if isinstance(value, tuple) else str(value)


def profile_options(cfg: Config, profile: dict, seed: int) -> dict:
    """The ``--cfg-options`` that turn a config into one of a profile.

    The learning rate schedule and the labeled-only phase keep their share of the run.

    Args:
        cfg (Config): Leaf config.
        profile (dict): A value of ``PROFILES``.
        seed (int): Of the run.

    Returns:
        dict: Dotted keys; indices of lists are numbers.
    """
    options = {'randomness.seed': seed, 'default_hooks.checkpoint.max_keep_ckpts': 2}
    old, new = cfg.train_cfg.max_iters, profile['steps']
    if new:
        options.update({'train_cfg.max_iters': new, 'train_cfg.val_interval': profile['val'],
                        'default_hooks.checkpoint.interval': profile['val']})
        scheduler = cfg.param_scheduler
        options.update({f'param_scheduler.{key}': round(scheduler[key] * new / old)
                        for key in ('begin', 'end') if scheduler.get(key)})
        if cfg.model.get('start_iter'):
            options['model.start_iter'] = round(cfg.model.start_iter * new / old)
    if profile['scale']:
        options['model.data_preprocessor.size'] = profile['crop']
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for path, transform in _typed(cfg[loader], loader):
                if transform['type'] in ('RandomResize', 'RandomScale', 'Resize'):
                    options[f'{path}.scale'] = profile['scale']
                elif transform['type'] == 'RandomCrop':
                    options[f'{path}.crop_size'] = profile['crop']
    options.update(profile['options'])
    return options


def _typed(node, path: str) -> Iterator[tuple]:
    """Every dict with a ``type`` below a config node, and its dotted path."""
    if isinstance(node, dict):
        if 'type' in node:
            yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from _typed(child, f'{path}.{key}')


def find_methods() -> List[str]:
    """Methods that have a CamVid config, the supervised baseline first."""
    end = '_lite0_camvid_24.py'
    found = {path.name[:-len(end)] for path in ROOT.glob(f'configs/*/*{end}')}
    return sorted(found, key=lambda name: (name != 'supervised', name))


# ---- what a row left behind ------------------------------------------------------------------------------------------


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


def seconds(folder: Path) -> int:
    """Wall time of a row, all attempts together."""
    stamps = [_stamps(path) for path in text_logs(folder)]
    return round(sum((s[-1] - s[0]).total_seconds() for s in stamps if s))


def trim_log(row: Row) -> str:
    """The lines of a row's logs that are worth keeping: all validations, about 150 training lines, notes, warnings."""
    every = max(100, -(-row.steps // 15000) * 100) if row.steps >= 1000 else 1
    kept = [f'config: {row.config}', f'command: python {shlex.join(row.command)}', f'commit: {_commit()}',
            *(f'environment: {name}={os.environ.get(name, value)}' for name, value in ALLOCATOR.items())]
    for path in text_logs(row.dir):
        kept.append(f'--- {path.name}')
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
    result = scores(read_scalars(row.dir), row.steps)
    if result is None:
        return None
    content = dict(method=row.method, labels=LABELS[row.split], split=row.split, profile=row.profile, seed=row.seed,
                   steps=row.steps, **result, config=row.config, command=f'python {shlex.join(row.command)}',
                   log=f'logs/{row.name}.log', seconds=seconds(row.dir))
    _write(row.dir / 'row.log', trim_log(row))
    _write(row.dir / 'row.json', json.dumps(content, indent=1))
    return content


# ---- the table -------------------------------------------------------------------------------------------------------


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
    labels and seed; the share of the gap relates them to what all 367 labels gain over the same row.
    """
    parts = []
    for profile in dict.fromkeys(row['profile'] for row in rows):
        of_profile = [row for row in rows if row['profile'] == profile]
        supervised = {(row['split'], row['seed']): _last(row) for row in of_profile if row['method'] == 'supervised'}
        steps = ', '.join(f'{n:,}' for n in sorted({row['steps'] for row in of_profile}))
        parts.append(f'### {profile} ({steps} steps)\n\n'
                     '| method | labels | seeds | last mIoU | best mIoU | gain over supervised | share of the gap |\n'
                     '|---|---:|---|---:|---:|---:|---:|')
        for method, split in dict.fromkeys((row['method'], row['split']) for row in of_profile):
            same = [row for row in of_profile if (row['method'], row['split']) == (method, split)]
            gains, shares = [], []
            for row in same if method != 'supervised' else []:
                base, ceiling = (supervised.get((name, row['seed'])) for name in (split, 'all'))
                if base is not None:
                    gains.append(_last(row) - base)
                    if ceiling is not None and ceiling > base:
                        shares.append(100 * gains[-1] / (ceiling - base))
            name = 'supervised, all labels' if split == 'all' and method == 'supervised' else method
            parts.append(f'| {name} | {same[0]["labels"]} | {", ".join(str(row["seed"]) for row in same)} '
                         f'| {_of(same, "last")} | {_of(same, "best")} '
                         f'| {_mean(gains, "+") if gains else "–"} '
                         f'| {f"{statistics.mean(shares):.0f} %" if shares else "–"} |')
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
    with _locked(out, wait=True):
        for content, log in finished:
            _write(out / content['log'], log)
        shown = [dict(content, log=_shown(out / content['log'])) for content, _ in finished]
        rows = merge_rows((_read_json(out / 'camvid.json') or {'rows': []})['rows'], shown)
        _write(out / 'camvid.json', json.dumps(dict(rows=rows), indent=1) + '\n')
        page = (out / 'camvid.md').read_text() if (out / 'camvid.md').is_file() else PAGE
        if not (page.count(BEGIN) == page.count(END) == 1 and page.index(BEGIN) < page.index(END)):
            raise UserError(f'{out / "camvid.md"} must hold the lines\n{BEGIN}\n{END}\nonce each, in this order')
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        _write(out / 'camvid.md', f'{head}{BEGIN}\n{make_table(rows)}\n{END}{tail}')
    return rows


def _shown(path: Path) -> str:
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _write(path: Path, text: str) -> None:
    """Appears whole or not at all."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text)
    part.replace(path)


def _read_json(path: Path) -> Optional[dict]:
    return json.loads(path.read_text()) if path.is_file() else None


@contextlib.contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[Optional[int]]:
    """Holds the lock of a folder; yields its descriptor, or None if another process holds it and ``wait`` is false."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)


# ---- running ---------------------------------------------------------------------------------------------------------


def usable_checkpoint(folder: Path) -> Optional[Path]:
    """The newest whole ``iter_*.pth``; a process killed while it saved leaves a cut-off one."""
    found = sorted(folder.glob('iter_*.pth'), key=lambda path: int(re.sub(r'\D', '', path.stem) or 0), reverse=True)
    return next((path for path in found if zipfile.is_zipfile(path)), None)


class Job:
    """A row in training.

    Args:
        row (Row): What to train.
        env (dict): Environment of the process.

    Raises:
        BlockingIOError: If another process trains this row.
        UserError: If the row was interrupted and its settings have changed since.
    """

    def __init__(self, row: Row, env: dict) -> None:
        self.row, self.start = row, time.time()
        row.dir.mkdir(parents=True, exist_ok=True)
        # The training process inherits the lock, so an orphan of a killed runner is not joined by a second one.
        with _locked(row.dir, wait=False) as lock:
            if lock is None:
                raise BlockingIOError(f'{row.name} is being trained by another process')
            checkpoint = usable_checkpoint(row.dir)
            settings = row.dir / 'settings.txt'
            if checkpoint and settings.is_file() and settings.read_text() != row.fingerprint:
                raise UserError(f'{row.dir} holds an interrupted row whose settings have changed since (another config '
                                'or profile): delete that folder to start over, or give another --work-dir')
            _write(settings, row.fingerprint)
            resume = []
            if checkpoint:
                _write(row.dir / 'last_checkpoint', str(checkpoint.resolve()))
                resume = ['--resume']
            with open(row.dir / 'output.txt', 'a') as output:
                self.process = subprocess.Popen([sys.executable, *row.command, *resume], cwd=ROOT, env=env,
                                                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                                pass_fds=(lock, ))

    def progress(self) -> str:
        """One line: iteration, rate, time left."""
        train = [r for r in read_scalars(self.row.dir) if 'mIoU' not in r]
        name = f'{self.row.method} {self.row.split} seed {self.row.seed}'
        if not train:
            return f'{name}: starting ({time.time() - self.start:.0f} s)'
        done, each = train[-1]['step'], train[-1].get('time', 0)
        bar = '#' * round(20 * done / self.row.steps)
        left = max((self.row.steps - done) * each, 0)
        rate = f'{1 / each:.2f} it/s, {_clock(left)} left' if each else ''
        return f'{name}: [{bar:.<20}] {done}/{self.row.steps} {rate}'

    def stop(self) -> None:
        """Ends the process and its workers; what it saved before stays."""
        for name, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return


def _clock(time_left: float) -> str:
    minutes = round(time_left / 60)
    return f'{minutes // 60} h {minutes % 60:02d} min' if minutes >= 60 else f'{minutes} min'


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a line a minute."""

    def __init__(self) -> None:
        self.tty, self.last = sys.stderr.isatty(), 0.

    def show(self, text: str) -> None:
        if self.tty:
            sys.stderr.write(f'\r\x1b[K{text[:os.get_terminal_size(2).columns - 1]}')
            sys.stderr.flush()
        elif time.time() - self.last >= 60:
            self.last = time.time()
            self.say(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        print(('\r\x1b[K' if self.tty else '') + text, file=sys.stderr, flush=True)


def run_rows(rows: Sequence[Row], jobs: int, env: dict, done) -> bool:
    """Trains the rows that are not finished.

    Args:
        rows (Sequence[Row]): In order.
        jobs (int): How many at a time.
        env (dict): Environment of the training processes.
        done (Callable[[Row], None]): Called after each finished row.

    Returns:
        bool: Whether all rows are finished now.
    """
    screen, waiting, running, complete = Progress(), list(rows), [], True
    number = {row.name: f'row {i} of {len(rows)}' for i, row in enumerate(rows, 1)}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                row = waiting.pop(0)
                if row.result:
                    screen.say(f'{number[row.name]}, {row.name}: finished before')
                    if (row.dir / 'settings.txt').read_text() != row.fingerprint:
                        screen.say(f'    with other settings than the config has now; delete {row.dir} to redo it')
                    continue
                try:
                    running.append(Job(row, env))
                except BlockingIOError as error:
                    screen.say(f'{number[row.name]}: skipped, {error}')
                    complete = False
                    continue
                screen.say(f'{number[row.name]}, {row.name}: training; its output: {row.dir / "output.txt"}')
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                row, result = job.row, finish(job.row)
                if result is None:
                    complete = False
                    tail = (row.dir / 'output.txt').read_text(errors='replace').splitlines()[-15:]
                    screen.say('\n    '.join([f'{number[row.name]}, {row.name}: FAILED, exit code '
                                              f'{job.process.returncode}; {row.dir / "output.txt"} ends:', *tail]))
                    continue
                last = {k: v for k, v in result.items() if k.endswith(('last', 'best'))}
                screen.say(f'{number[row.name]}, {row.name}: done in {_clock(result["seconds"])}, {last}')
                done(row)
            if running:
                screen.show(' | '.join(f'{number[job.row.name]}, {job.progress()}' for job in running))
                time.sleep(1)
    finally:
        for job in running:
            job.stop()
    return complete


# ---- the command line ------------------------------------------------------------------------------------------------


def find_data() -> Path:
    """The CamVid folder; the configs read the same variable.

    Raises:
        UserError: If it is not there.
    """
    given = os.environ.get('CAMVID_ROOT')
    folder = Path(given).resolve() if given else (ROOT / DEFAULT_DATA).resolve()
    missing = [name for name in ('img_dir/train', 'img_dir/val', 'ann_dir/train', 'ann_dir/val', 'splits')
               if not (folder / name).is_dir()]
    if missing:
        where = 'the environment variable CAMVID_ROOT' if given else f'the default, {DEFAULT_DATA} (no CAMVID_ROOT set)'
        raise UserError(f'no CamVid in {folder}, from {where}: {", ".join(missing)} missing. Set CAMVID_ROOT to the '
                        'folder that holds img_dir, ann_dir and splits')
    return folder


def parse_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--profile', choices=list(PROFILES), required=True)
    parser.add_argument('--methods', nargs='+', help='default: supervised and pcr for smoke, else all with a config')
    parser.add_argument('--splits', nargs='+', choices=['drives_24', 'drives_12'])
    parser.add_argument('--ceiling', action='store_true', help='also train supervised with all 367 labels')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'bench_camvid')
    parser.add_argument('--out', type=Path, help='default: docs/benchmarks; for smoke, WORK_DIR/smoke')
    parser.add_argument('--jobs', type=int, default=1, help='rows at a time')
    parser.add_argument('--threads', type=int, help='CPU threads of a row (default: cores / jobs)')
    parser.add_argument('--only-report', action='store_true', help='train nothing: collect what is finished')
    return parser.parse_args(args)


def plan(args: argparse.Namespace) -> List[Row]:
    """The rows that the command line asks for, the supervised ones of a split before the methods."""
    profile = PROFILES[args.profile]
    methods, known = args.methods or profile['methods'] or find_methods(), find_methods()
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise UserError(f'--methods: {", ".join(unknown)} unknown; there are configs for {", ".join(known)}')
    splits = args.splits or profile['splits']
    work_dir = args.work_dir.resolve()
    cells = [(method, split) for split in splits for method in methods] + [('supervised', 'all')] * args.ceiling
    return [Row(method, split, seed, args.profile, work_dir) for seed in args.seeds for method, split in cells]


def main() -> int:
    """Trains and reports; returns the exit code: 0 done, 1 a row failed, 2 a mistake of the caller, 130 interrupted."""
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rows = plan(args)
        out = args.out or (args.work_dir / 'smoke' if args.profile == 'smoke' else ROOT / 'docs' / 'benchmarks')

        def report(*of: Row) -> List[dict]:
            return write_report(out, [(row.result, (row.dir / 'row.log').read_text()) for row in of])

        complete = True
        if not args.only_report:
            env = {**ALLOCATOR, **os.environ, 'CAMVID_ROOT': str(find_data())}
            env['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), env.get('PYTHONPATH')]))
            threads = str(args.threads or max(1, (os.cpu_count() or 1) // args.jobs))
            env.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
            _check_device(args.profile)
            if not (ROOT / WEIGHTS).is_file():
                converter = [sys.executable, 'tools/model_converters/efficientnet_lite0.py', str(WEIGHTS)]
                if subprocess.run(converter, cwd=ROOT, env=env).returncode:
                    raise UserError(f'could not make {WEIGHTS}; the lines above say why')
            complete = run_rows(rows, args.jobs, env, report)
        table = report(*(row for row in rows if row.result))
        print(make_table([row for row in table if row['profile'] == args.profile]))
        print(f'{out / "camvid.json"}: {len(table)} rows')
        return 0 if complete else 1
    except UserError as error:
        print(f'bench_camvid: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nbench_camvid: interrupted; the same command continues', file=sys.stderr)
        return 130


def _check_device(profile: str) -> None:
    if PROFILES[profile]['amp']:
        import torch
        if not torch.cuda.is_available():
            raise UserError(f'profile {profile} trains in mixed precision on a GPU, and torch finds none; '
                            'use --profile laptop')


if __name__ == '__main__':
    sys.exit(main())
