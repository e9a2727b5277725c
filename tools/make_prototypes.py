"""Makes the prototypes of PCR from a supervised-only checkpoint of the same architecture and labeled list.

    python tools/make_prototypes.py configs/pcr/pcr_r101_voc.py work_dirs/supervised_r101_voc/iter_49600.pth \
        --out prototypes.pth

Then train with `PrototypeInitHook(file='prototypes.pth')`: the published way, prototypes from the first step on.
"""
import argparse
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import torch
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.engine.hooks.prototype_init_hook import cluster_labeled_pixels
from mmseg_semi.files import whole
from mmseg_semi.models.segmentors import PCR
from mmseg_semi.registry import MODELS


def main() -> None:
    """Reads the command line and makes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a PCR config; it names the labeled images and the validation pipeline')
    parser.add_argument('checkpoint', help='a supervised-only or PCR checkpoint; its student is used')
    parser.add_argument('--out', default='prototypes.pth', type=Path)
    parser.add_argument('--seed', default=0, type=int)
    parser.add_argument('--cfg-options', nargs='+', action=Options, help='settings to override, as in train.py')
    args = parser.parse_args()
    if not Path(args.checkpoint).is_file():
        parser.error(f'no checkpoint {args.checkpoint}')
    try:
        make(parser, args)
    except MISTAKES as error:
        give_up(error)


def make(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Clusters the features of the labeled pixels."""
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    if not isinstance(model, PCR):
        parser.error(f'{args.config}: model.type must be PCR, found {cfg.model.type}')
    checkpoint = load_checkpoint(model, args.checkpoint, map_location='cpu')
    state = checkpoint.get('state_dict', checkpoint)
    missing = [name for name, _ in model.named_parameters() if name.split('.')[0] != 'teacher' and name not in state]
    if missing:
        parser.error(f'{args.checkpoint} lacks {len(missing)} tensors of the student, the first is {missing[0]}')
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    bank, class_valid = cluster_labeled_pixels(model, cfg, args.seed)
    with whole(args.out) as part:
        torch.save(dict(bank=bank, class_valid=class_valid), part)
    classes, prototypes, channels = bank.shape
    print(f'{args.out}: {int(class_valid.sum())} of {classes} classes x {prototypes} prototypes x {channels} channels')


if __name__ == '__main__':
    main()
