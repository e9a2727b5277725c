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
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

from camvid_bench.common import ROOT, UserError
from camvid_bench.jobs import run_rows
from camvid_bench.report import make_table, write_report
from camvid_bench.results import ALLOCATOR
from camvid_bench.rows import DEFAULT_DATA, PROFILES, Row, find_methods

from mmseg_semi.engine.give_up import positive

WEIGHTS = Path('checkpoints/efficientnet_lite0.pth')


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
    parser.add_argument('--jobs', type=positive, default=1, help='rows at a time')
    parser.add_argument('--threads', type=positive, help='CPU threads of a row (default: cores / jobs)')
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
