"""Runs a self-training plan, all of it or in parts. `tools/train.py CONFIG` runs all of it, too.

    python tools/self_train.py configs/self_training/st_tiny_shapes.py --dry-run
    python tools/self_train.py configs/self_training/st_tiny_shapes.py --until label
    python tools/self_train.py configs/self_training/st_tiny_shapes.py              # goes on where it stopped
"""
import argparse
import os
import sys
from pathlib import Path

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.engine.runner.self_training import SelfTrainingRunner
from mmseg_semi.engine.runner.stage import PlanError


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='plan: a config with self_training=dict(stages=[...])')
    parser.add_argument('--work-dir', help='default: work_dir of the config, else work_dirs/CONFIG_NAME')
    parser.add_argument('--from', dest='start', metavar='STAGE', help='first stage to run; those before must be done')
    parser.add_argument('--until', metavar='STAGE', help='last stage to run')
    parser.add_argument('--dry-run', action='store_true', help='only tell which stages are done and which would run')
    parser.add_argument('--on-stale', choices=['error', 'rerun'],
                        help='stages whose settings have changed or whose files are lost; rerun deletes their folders')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='settings that override the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    args = parser.parse_args()
    # mpirun has a name of its own for it, which mmengine does not pass on to DDP.
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
    return args


def load_plan(args: argparse.Namespace) -> SelfTrainingRunner:
    """Reads the config and applies the command line to it.

    Raises:
        PlanError: If it holds no plan or a wrong one.
        FileNotFoundError: If there is no such config.
        ValueError: If it cannot be read.
    """
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    asked = dict(start=args.start, until=args.until, dry_run=args.dry_run or None, on_stale=args.on_stale)
    if not cfg.get('self_training'):
        raise PlanError(f'{args.config} has no self_training, so it is no plan; train it with: '
                        f'python tools/train.py {args.config}')
    cfg.merge_from_dict({f'self_training.{key}': value for key, value in asked.items() if value is not None})
    adapt(cfg, args.launcher)
    return SelfTrainingRunner.from_cfg(cfg)


def main() -> int:
    """Builds the plan and runs it; returns the exit code: 0 done, 130 interrupted; 2, a mistake, ends it at once."""
    args = parse_args()
    plan = None
    try:
        plan = load_plan(args)
        plan.train()
        return 0
    except PlanError as error:  # says what to change; where it was raised tells nothing
        give_up(error)
    except MISTAKES as error:
        give_up(error, plan and plan.cfg)
    except KeyboardInterrupt:
        print('\ninterrupted; the same command goes on where it stopped', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
