"""Segments images, folders of images and videos with a trained model.

    python tools/predict.py CONFIG CHECKPOINT photo.jpg --out predictions
    python tools/predict.py CONFIG CHECKPOINT photos 'more/**/*.png' drive.mp4 --out predictions --confidence

    OUT/masks/NAME.png         class indices, shown in the classes' colors
    OUT/overlays/NAME.jpg      the image under these colors; of a video NAME.mp4, its masks NAME/000000.png
    OUT/confidence/NAME.png    with --confidence: probability of the class, 0 to 255
    OUT/areas.csv              pixels and share of each class in each image

NAME is the path below the folder that all inputs share, for images without suffix, for videos with it. The same
command continues where it was stopped and makes again what the checkpoint, the config or the image has changed.
"""
import argparse
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import torch
from mmengine.config import Config
from mmengine.device import get_device
from prediction.inputs import Source, find_sources
from prediction.job import Job
from prediction.network import Predictor, kinds_of
from prediction.outputs import FOLDERS, Output

from mmseg_semi.engine.give_up import Options

NAMED = 5  # files that failed for the same reason, before the others are only counted


def parse_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config that the model was trained with')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('images', nargs='+', help='images, folders (searched at every depth), globs in quotes, videos')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('--network', choices=['teacher', 'student'],
                        help='which network of a semi-supervised model predicts (default: the one that is tested)')
    parser.add_argument('--batch-size', type=int, default=4, help='images of one size that are predicted together')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: the first GPU, else the CPU)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colors in overlays, 0 to 1')
    parser.add_argument('--confidence', action='store_true', help='also write confidence maps')
    parser.add_argument('--overwrite', action='store_true', help='make all results again, even those up to date')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='settings that override the config')
    args = parser.parse_args(args)
    if args.batch_size < 1:
        parser.error(f'--batch-size {args.batch_size}: expected 1 or more')
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity {args.opacity:g}: expected 0 to 1')
    return args


def find_device(name: Optional[str]) -> str:
    """The device to predict on.

    Raises:
        ValueError: If this machine has no such device.
    """
    name = name or get_device()
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {name} cannot be used here ({str(error).splitlines()[0]}); --device cpu always '
                         'works') from error
    return name


def read_config(path: str, options: Optional[dict]) -> Config:
    """Reads the config and applies ``--cfg-options``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no config.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no config {path}; training leaves it in work_dirs/CONFIG_NAME/CONFIG_NAME.py')
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:  # a config is a program
        raise ValueError(f'{path} is not a usable config: {type(error).__name__}: {error}') from error
    return cfg


def prepare(args: argparse.Namespace) -> tuple[Job, List[Source]]:
    """Finds the inputs and loads the network."""
    cfg = read_config(args.config, args.cfg_options)
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out {args.out} is a file; expected a folder')
    sources, skipped_videos = find_sources(args.images, [args.out / name for name in FOLDERS], kinds_of(cfg))
    predictor = Predictor(cfg, args.checkpoint, find_device(args.device), args.network)
    if skipped_videos:
        print(f'{skipped_videos} videos in the folders are skipped; name them or use a glob to include them')
    if predictor.note:
        print(predictor.note)
    output = Output(args.out, predictor.classes, predictor.palette, predictor.fingerprint, args.opacity,
                    args.confidence)
    print(f'{len(sources)} files, predicted by the {predictor.network} of {args.checkpoint} on '
          f'{next(predictor.model.parameters()).device}', flush=True)
    return Job(predictor, output, args.batch_size, args.overwrite), sources


def report(failures: Dict[str, str]) -> None:
    """Prints what failed, one line per reason: with a wrong config, thousands of files fail for the same."""
    files = defaultdict(list)
    for path, reason in failures.items():
        files[reason].append(path)
    for reason, paths in files.items():
        more = f' and {len(paths) - NAMED} more' if len(paths) > NAMED else ''
        print(f'error: {", ".join(paths[:NAMED])}{more}: {reason}', file=sys.stderr)


def main() -> int:
    """Predicts; returns the exit status: 0 done, 1 some files failed, 2 a mistake of the caller, 130 interrupted."""
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            job, sources = prepare(args)
            job.protect(sources)
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
            return 2
        job.run(sources)
    except KeyboardInterrupt:
        print('\ninterrupted; the same command continues', file=sys.stderr)
        return 130
    except OSError as error:  # such as a full disk
        print(f'\nerror: {error}; the same command continues', file=sys.stderr)
        return 1
    report(job.failures)
    print(f'{job.counts["made"]} masks made, {job.counts["kept"]} were up to date, {len(job.failures)} files failed; '
          f'areas of the classes: {job.output.areas}')
    return 1 if job.failures else 0


if __name__ == '__main__':
    sys.exit(main())
