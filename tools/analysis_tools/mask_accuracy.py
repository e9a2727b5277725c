"""Compares masks of self-training with the ground truth of their images, where there is one that no training saw.

    python tools/analysis_tools/mask_accuracy.py CONFIG MASKS [MASKS ...] [--only '0016E5*'] [--json]

MASKS are folders of `PseudoLabelStage`, such as `work_dirs/st_lite0_camvid_12/02_label/masks`. The ground truth is
looked for where the labeled images of CONFIG have theirs. For each folder and class: IoU in %, and the share of the
pixels that the class has in the ground truth -> in the masks. Pixels that either leaves out (255) are not counted.
"""
import argparse
import fnmatch
import json
from math import isnan
from pathlib import Path
from typing import Dict

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmseg_semi.datasets.pseudo_labeled import IGNORE, check_mask, read_mask
from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.registry import DATASETS


def images_with_truth(cfg: Config) -> BaseSegDataset:
    """The labeled dataset of a config with every image of its folder; a sample is read by its ``LoadAnnotations``."""
    settings = cfg.train_dataloader.dataset
    settings = settings.get('labeled', settings)
    load = [step for step in settings.pipeline if step['type'] == 'LoadAnnotations']
    return DATASETS.build({**settings, 'ann_file': '', 'pipeline': load})


def mask_name(info: dict, dataset: BaseSegDataset) -> str:
    """How ``PseudoLabelStage`` calls the mask of an image."""
    return Path(info['img_path']).relative_to(dataset.data_prefix['img_path']).with_suffix('.png').as_posix()


def areas(folder: Path, dataset: BaseSegDataset, index: Dict[str, int], only: str) -> Tensor:
    """Pixels of each class: right, true or found, found, true; [4, C] float64.

    Raises:
        ValueError: If no mask fits ``only``, a mask has no ground truth, or it is of another size or has other classes.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))
    chosen = [name for name in names if fnmatch.fnmatch(name[:-len('.png')], only)]
    if not chosen:
        raise ValueError(f'{folder} has {len(names)} masks (PNG), none of them fits --only {only!r}')
    classes = len(dataset.metainfo['classes'])
    total = torch.zeros(4, classes, dtype=torch.float64)
    for name in track_iter_progress(chosen):
        if name not in index:
            raise ValueError(f'{folder / name} has no image in {dataset.data_prefix["img_path"]}: is this the config '
                             'that the masks were made with?')
        sample = dataset[index[name]]
        truth, mask = torch.from_numpy(sample['gt_seg_map']), torch.from_numpy(read_mask(folder / name))
        check_mask(folder / name, mask.shape, mask.unique().tolist(), sample['img_path'], truth.shape, classes)
        truth[mask == IGNORE] = IGNORE
        total += torch.stack(IoUMetric.intersect_and_union(mask, truth, classes, IGNORE))
    return total


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('masks', nargs='+', type=Path, metavar='MASKS')
    parser.add_argument('--only', default='*', help='masks whose name fits, without .png; default: all')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    cfg = None
    try:
        cfg = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        dataset = images_with_truth(cfg)
        index = {mask_name(dataset.get_data_info(i), dataset): i for i in range(len(dataset))}
        totals = [areas(folder, dataset, index, args.only) for folder in args.masks]
    except MISTAKES as error:
        give_up(error, cfg)
    table = []
    for folder, (right, either, found, true) in zip(args.masks, totals, strict=True):
        iou, pixels = 100 * right / either, true.sum()
        share, found = 100 * true / pixels, 100 * found / pixels
        table.append(dict(masks=str(folder), mIoU=iou.nanmean().item(), right=(100 * right.sum() / pixels).item(),
                          IoU=[None if isnan(x) else x for x in iou.tolist()], share=share.tolist(),
                          found=found.tolist()))
        print(f'\n{folder}: mIoU {table[-1]["mIoU"]:.1f}, {table[-1]["right"]:.1f} % of the pixels are right')
        for row in zip(dataset.metainfo['classes'], iou, share, found, strict=True):
            print('{:>20}  IoU {:5.1f}   {:5.1f} % -> {:5.1f} %'.format(*row))
    if args.json:
        print(json.dumps(dict(classes=list(dataset.metainfo['classes']), folders=table)))


if __name__ == '__main__':
    main()
