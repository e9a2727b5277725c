"""What the converters share: read published weights, rename, hold them against the config's backbone, write."""
import argparse
import signal
import sys
import warnings
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmseg_semi.engine.give_up import Options
from mmseg_semi.models.backbone_weights import build_backbone, check_weights, read_weights, write_weights
from mmseg_semi.models.network_check import check_installed

# Takes the published tensors and the config's backbone; returns them under the backbone's names, and what it left out.
Convert = Callable[[Dict[str, Tensor], nn.Module], Tuple[Dict[str, Tensor], List[str]]]


def parse_args(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config with the backbone that shall load the weights')
    parser.add_argument('weights', type=Path, help='the published file')
    parser.add_argument('out', nargs='?', type=Path, help='defaults to the file that the config loads')
    parser.add_argument('--cfg-options', nargs='+', action=Options, help='settings to override, as in train.py')
    return parser.parse_args()


def output(args: argparse.Namespace, init_cfg: dict) -> Path:
    """Where to write; never over the file that is read.

    Raises:
        ValueError: If neither the command line nor the config names a file, or it is a folder or the input.
    """
    named = init_cfg.get('checkpoint', '')
    if args.out is None and (not named or '://' in named):
        raise ValueError(f'{args.config} loads {named or "no weights"}, which is no file: name the file to write as '
                         'third argument, such as checkpoints/backbone.pth')
    out = args.out or Path(named)
    if out.is_dir():
        raise ValueError(f'{out} is a folder; name the file to write')
    if out.resolve() == args.weights.resolve():
        raise ValueError(f'{out} is the published file itself: name another file to write')
    return out


def convert_file(args: argparse.Namespace, convert: Convert) -> None:
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'{args.config} does not exist; expected a config such as '
                                'configs/swap/pcr_dinov2_small_dpt.py')
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
    except Exception as error:  # a config is a program and may fail like one
        raise ValueError(f'{args.config} cannot be read: {error}') from error
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    if 'backbone' not in cfg.get('model', {}):
        raise ValueError(f'{args.config} has no model.backbone; expected the config of a segmentor')
    init_cfg = cfg.model.backbone.get('init_cfg')
    init_cfg = init_cfg if isinstance(init_cfg, dict) else {}  # a list tells how to draw, not what to load
    out = output(args, init_cfg)
    source = read_weights(args.weights)
    check_installed(cfg.model.backbone)
    try:
        backbone = build_backbone(cfg.model)
    except (AssertionError, KeyError) as error:
        raise ValueError(f'{args.config}: model.backbone cannot be built: {error}') from error
    weights, left_out = convert(source, backbone)
    notes = check_weights(weights, backbone)
    prefix = init_cfg.get('prefix', '').rstrip('.')
    write_weights({f'{prefix}.{name}' if prefix else name: value for name, value in weights.items()}, out)
    print(f"{out}: {len(weights)} tensors for {type(backbone).__name__}; left out: {', '.join(left_out) or 'nothing'}")
    for note in notes:
        print(note)
    if init_cfg.get('checkpoint') != str(out):
        print('To load it: --cfg-options model.backbone.init_cfg.type=Pretrained '
              f'model.backbone.init_cfg.checkpoint={out}')


def main(description: str, convert: Convert) -> None:
    """The whole command line of a converter: status 2 and one line for a wrong input, 130 when interrupted."""
    args = parse_args(description)
    warnings.simplefilter('ignore')
    try:
        convert_file(args, convert)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
