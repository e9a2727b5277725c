"""Trains a model from a config; the same command line as mmseg's tools/train.py."""
import argparse
import os
import sys
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, is_of_data, read_config
from mmseg_semi.engine.runner.resume import go_on, keep_two_checkpoints
from mmseg_semi.engine.runner.state import usable_checkpoint


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Train a segmentor, supervised or semi-supervised')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where log and checkpoints go (default: the config\'s, or work_dirs/NAME)')
    parser.add_argument('--resume', action='store_true', help='resume from the latest checkpoint of the work dir')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
        help='settings that override the config: key=value, key=a,b or key="[(a,b),(c,d)]" (quoted, no spaces)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    args = parser.parse_args()
    # mpirun has a name of its own for it, which mmengine does not pass on to DDP.
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config and applies the command line to it.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it cannot be read, mixed precision finds no GPU or an optimizer wrapper that ``--amp`` cannot
            replace, or the work dir holds a training that would be overwritten.
    """
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.resume:
        cfg.resume = True
    if 'runner_type' not in cfg:
        keep_two_checkpoints(cfg)
        # A checkpoint on the command line is the one to resume.
        if cfg.get('resume') and 'load_from' not in (args.cfg_options or {}) and not go_on(cfg):
            print(f'{cfg.work_dir} holds no whole checkpoint to resume: training begins anew', file=sys.stderr)
    if args.amp and cfg.optim_wrapper.type != 'AmpOptimWrapper':
        if cfg.optim_wrapper.type != 'OptimWrapper':
            raise ValueError("--amp needs optim_wrapper.type='OptimWrapper', "
                             f'but the config has {cfg.optim_wrapper.type!r}')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper' and get_device() in ('cpu', 'mps'):
        raise ValueError("mixed precision (--amp, optim_wrapper.type='AmpOptimWrapper') needs a GPU, and torch finds "
                         'none: leave it out')
    if 'runner_type' not in cfg and not cfg.get('resume'):
        _refuse_to_overwrite(Path(cfg.work_dir), 'load_from' in (args.cfg_options or {}))
    return cfg


def _refuse_to_overwrite(work_dir: Path, start_is_given: bool) -> None:
    newest = usable_checkpoint(work_dir)
    if newest:
        resume = '' if start_is_given else '--resume goes on with it, '  # it would resume that one
        raise ValueError(f'{newest} is of an earlier training, which this one would overwrite: {resume}--work-dir DIR '
                         'trains elsewhere; or move it away')


def trains(runner) -> bool:
    """Whether training has begun."""
    try:
        return getattr(runner, 'iter', 0) > 0
    except MISTAKES:  # the property builds what is not built yet, and fails again
        return False


def main() -> int:
    """Builds the runner and trains; returns the exit code: 0 done, 130 interrupted; 2, a mistake, ends it at once."""
    args = parse_args()
    cfg = runner = None
    try:
        cfg = load_config(args)
        adapt(cfg, args.launcher)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.train()
        return 0
    except MISTAKES as error:
        if trains(runner) and not is_of_data(error):
            raise  # no mistake that could have been told before
        give_up(error, cfg)
    except KeyboardInterrupt:
        print('\ninterrupted; the same command with --resume goes on from the last checkpoint', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
