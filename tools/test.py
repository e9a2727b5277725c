"""Evaluates a checkpoint; the same command line as mmseg's tools/test.py."""
import argparse
import os
import sys
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Test a segmentor: scores, predictions, pictures')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--work-dir', help='where log and scores go (default: the config\'s, or work_dirs/NAME)')
    parser.add_argument('--out', help='folder for the predicted label maps, for scoring elsewhere')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='folder for the painted predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows each image')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
        help='settings that override the config: key=value, key=a,b or key="[(a,b),(c,d)]" (quoted, no spaces)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, by the config\'s tta_pipeline')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    args = parser.parse_args()
    # mpirun has a name of its own for it, which mmengine does not pass on to DDP.
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config and applies the command line to it.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it cannot be read, or an option asks for a part that it lacks.
    """
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        _show(cfg, args)
    if args.tta:
        _require(cfg, '--tta', 'tta_model', 'tta_pipeline')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    if args.out is not None:
        # The first of several evaluators is the predicting network's; the others look at the same images.
        evaluator = cfg.test_evaluator[0] if isinstance(cfg.test_evaluator, list) else cfg.test_evaluator
        evaluator.update(output_dir=args.out, keep_results=True)
    return cfg


def _show(cfg: Config, args: argparse.Namespace) -> None:
    """Switches on the hook that paints predictions."""
    _require(cfg, '--show and --show-dir', 'default_hooks', 'visualizer')
    if 'visualization' not in cfg.default_hooks:
        raise ValueError("--show and --show-dir need default_hooks.visualization=dict(type='SegVisualizationHook'), "
                         f'but the config has only the hooks {", ".join(cfg.default_hooks)}')
    hook = cfg.default_hooks.visualization
    hook.draw = True
    hook.interval = 1  # OpenMMLab's hook would paint every 50th batch only
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def _require(cfg: Config, option: str, *settings: str) -> None:
    missing = [setting for setting in settings if setting not in cfg]
    if missing:
        raise ValueError(f'{option} needs {" and ".join(settings)} in the config, but it has no '
                         f'{" and no ".join(missing)}')


def main() -> int:
    """Builds the runner and tests; returns the exit code: 0 done, 130 interrupted; 2, a mistake, ends it at once."""
    args = parse_args()
    cfg = None
    try:
        cfg = load_config(args)
        adapt(cfg, args.launcher)
        Runner.from_cfg(cfg).test()
        return 0
    except MISTAKES as error:
        give_up(error, cfg)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
