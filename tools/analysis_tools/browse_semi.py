"""Draws what the student of a semi-supervised config really sees, one picture per batch.

    python tools/analysis_tools/browse_semi.py CONFIG [CHECKPOINT] --batches 3 --out DIR

The batches come from the config's own loader, the pseudo-labels and strong views from the model's own code: weak view,
pseudo-label, confidence and weight, then each strong view with the label and the weight it is trained on. Without a
checkpoint the network is untrained, so its labels mean nothing, while views and mixing are those of training. Nothing
is trained.
"""
import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import numpy as np
import torch
from browse_page import draw_step
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.give_up import Options
from mmseg_semi.files import whole
from mmseg_semi.models.segmentors import SemiEncoderDecoder
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import SemiBatch, Step

UNTRAINED = 'NO CHECKPOINT: the network is untrained, its labels mean nothing'


class UserError(Exception):
    """Something the caller has to change; printed in one line."""


def parse_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of a semi-supervised config')
    parser.add_argument('checkpoint', nargs='?', help='weights of student and teacher')
    parser.add_argument('--batches', type=_positive, default=3, help='pictures (default: 3)')
    parser.add_argument('--rows', type=_positive, default=4, help='images of each kind per picture (default: 4)')
    parser.add_argument('--out', type=Path, help='folder of the pictures (default: work_dirs/NAME/browse_semi)')
    parser.add_argument('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE',
                        help='settings that override the config, as in tools/train.py')
    return parser.parse_args(args)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number from 1 on, found {text!r}')
    return int(text)


def read_config(args: argparse.Namespace) -> Config:
    """Reads the config; refuses those that take no semi-supervised steps.

    Raises:
        UserError: If there is no step to draw.
    """
    with one_line(f'cannot read the config {args.config}'):
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    if cfg.get('runner_type'):
        raise UserError(f'browse_semi draws the steps of one training, but {args.config} has runner_type='
                        f'{cfg.runner_type!r}, which trains in stages from files; look at the masks it writes')
    found = cfg.get('model', {}).get('type')
    kind = MODELS.get(found) if isinstance(found, str) else found
    if not (isinstance(kind, type) and issubclass(kind, SemiEncoderDecoder)):
        raise UserError(f'browse_semi needs a semi-supervised config; model.type of {args.config} is {found!r}, '
                        'which has no teacher and no strong views')
    if cfg.get('train_dataloader') is None:
        raise UserError(f'{args.config} has no train_dataloader, from which the batches would come')
    adapt(cfg)
    return cfg


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turns whatever a config breaks into one line for its author."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = ' '.join(str(error).split())
        raise UserError(f'{what}: {type(error).__name__}: {text}') from error


def build_model(cfg: Config, checkpoint: Optional[str]) -> Tuple[SemiEncoderDecoder, int, str]:
    """The model in train mode, the iteration to draw, and a line on where the weights come from.

    The iteration is that of the checkpoint, but not before the first one in which the teacher labels.
    """
    with one_line('cannot build the model'):
        model = MODELS.build(cfg.model)
    iteration, origin = 0, UNTRAINED
    if checkpoint is not None:
        if not os.path.isfile(checkpoint):
            raise UserError(f'checkpoint not found: {checkpoint} (relative paths start at {Path.cwd()})')
        with one_line(f'cannot load the checkpoint {checkpoint}'):
            loaded = load_checkpoint(model, checkpoint, map_location='cpu')
            iteration = loaded.get('meta', {}).get('iter', 0)
            origin = f'{checkpoint}, iteration {iteration}' + _missing(model, loaded.get('state_dict', loaded))
    model.to('cuda' if torch.cuda.is_available() else 'cpu').train()
    return model, max(iteration, model.start_iter), origin


def _missing(model: SemiEncoderDecoder, state: dict) -> str:
    """Tells of tensors that a checkpoint lacks: mmengine only logs them, and the pictures would mislead.

    Raises:
        UserError: If none of them fits.
    """
    shapes = {name.removeprefix('module.'): tensor.shape for name, tensor in state.items()}
    own = {name: tensor.shape for name, tensor in model.state_dict().items() if not name.startswith('teacher.')}
    lacking = [name for name, shape in own.items() if shapes.get(name) != shape]
    if len(lacking) == len(own):
        raise UserError(f'none of the {len(own)} tensors of {type(model).__name__} is in it; expected a checkpoint of '
                        'this config')
    return f'; {len(lacking)} of {len(own)} tensors are not in it, e.g. {lacking[0]}' if lacking else ''


def build_loader(cfg: Config, seed: int):
    """The config's training loader, in this process."""
    settings = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    for key in ('prefetch_factor', 'timeout'):
        settings.pop(key, None)
    with one_line('cannot build train_dataloader'):
        return Runner.build_dataloader(settings, seed=seed)


def max_iters(cfg: Config, loader) -> int:
    """Length of the training, on which the schedules of some methods depend."""
    train = cfg.get('train_cfg') or {}
    return train.get('max_iters') or train.get('max_epochs', 1) * len(loader)


@torch.no_grad()
def make_step(model: SemiEncoderDecoder, batch: dict, iteration: int, seed: int) -> Step:
    """The first half of a training step, by the model's own slots: up to the strong views.

    Raises:
        UserError: If the model takes another kind of step.
    """
    data = model.data_preprocessor(batch, training=True)
    if not isinstance(data['inputs'], SemiBatch):
        raise UserError('the loader makes plain batches: set train_dataloader.collate_fn=dict(type="semi_collate") and '
                        'a SemiDataset')
    model.begin_iter(iteration, seed=seed, rank=0)
    step = model.new_step(data['inputs'], data['data_samples'])
    model.teacher_views(step)
    step.target = model.pseudo_label(step.out_teacher, data['inputs'])
    step.mixed = model.strong_views(step)
    return step


def look_of(dataset, num_classes: int) -> Tuple[List[str], np.ndarray]:
    """Names and colors, RGB uint8 [C, 3], of the classes; made up where the data set has none."""
    classes = list(dataset.metainfo.get('classes') or (f'class {c}' for c in range(num_classes)))
    palette = dataset.metainfo.get('palette') or []
    if len(palette) != len(classes):
        palette = np.random.RandomState(42).randint(0, 255, (len(classes), 3))
    return classes, np.array(palette, np.uint8)


def browse(args: argparse.Namespace) -> Path:
    """Draws; returns the folder.

    Raises:
        UserError: If the config cannot be drawn.
    """
    cfg = read_config(args)
    out = (args.out or Path('work_dirs') / Path(args.config).stem / 'browse_semi').resolve()
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    set_random_seed(seed)
    loader = build_loader(cfg, seed)
    model, iteration, origin = build_model(cfg, args.checkpoint)
    model.begin_train(max(max_iters(cfg, loader), iteration + 1))
    classes, palette = look_of(loader.dataset, model.num_classes)
    batches = iter(loader)
    for number in range(args.batches):
        with one_line(f'batch {number} fails'):
            try:
                batch = next(batches)
            except StopIteration:
                print(f'the loader holds {number} batches only')
                break
            step = make_step(model, batch, iteration + number, seed)
        target, pixels = step.target, max(int(step.target.valid.sum()), 1)
        sums = (f'mean weight {float(target.weight.sum()) / pixels:.1%}, '
                f'mean confidence {float((target.confidence * target.valid).sum()) / pixels:.3f}')
        title = [f'{Path(args.config).name}, {type(model).__name__}, iteration {iteration + number}: {sums}', origin]
        with whole(out / f'batch_{number:03}.png') as part:
            draw_step(step, classes, palette, title, args.rows).save(part)
        print(f'{out / f"batch_{number:03}.png"}: {sums}')
    print(origin)
    return out


def main(args: Optional[Sequence[str]] = None) -> int:
    """Returns the exit status."""
    args = parse_args(args)
    try:
        browse(args)
    except (UserError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
