"""The data sets in their published layouts, and a short training, for the tests of the papers' configs."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BLENDED = (662, 1323, 2646, 5291)
VOC_LISTS = [*(f'classic/{n}' for n in (92, 183, 366, 732, 1464)),
             *(f'blended_{family}/{n}' for family in ('u2pl', 'cps') for n in BLENDED)]
CITYSCAPES_LISTS = [f'u2pl/{n}' for n in (186, 372, 744, 1488)]
COCO_LISTS = (232, 463, 925, 1849, 3697)
SMALL = [
    'model.backbone.depth=18', 'model.backbone.stem_channels=8', 'model.backbone.base_channels=8',
    'model.backbone.init_cfg=None', 'model.decode_head.in_channels=64', 'model.decode_head.c1_in_channels=8',
    'model.decode_head.channels=8', 'model.decode_head.c1_channels=8', 'model.data_preprocessor.size=(65,65)',
    'train_cfg.max_iters=2', 'param_scheduler.end=2', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1'
]


@pytest.fixture(scope='module')
def data_roots(tmp_path_factory):
    """The data sets in their own layout, with a handful of small images and every published list."""
    roots = dict(VOC_ROOT=tmp_path_factory.mktemp('VOC2012'), CITYSCAPES_ROOT=tmp_path_factory.mktemp('cityscapes'),
                 COCO_ROOT=tmp_path_factory.mktemp('coco'))
    rng = np.random.default_rng(0)

    def image(path, height, width):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)

    def mask(path, height, width, num_classes, palette=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.repeat(rng.integers(0, num_classes, (height, 1), dtype=np.uint8), width, axis=1)
        labels[:, :2] = 255
        picture = Image.fromarray(labels)
        if palette:
            # As published: indices into the colors of VOC, not gray values.
            picture.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        picture.save(path)

    def write(path, names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{name}\n' for name in names))

    root = roots['VOC_ROOT']
    labeled, unlabeled, val = (['2007_000032', '2007_000039', '2007_000063'], ['2008_000002', '2008_000003'],
                               ['2007_000033', '2007_000042'])
    for name in labeled + unlabeled + val:
        image(root / 'JPEGImages' / f'{name}.jpg', 60, 83)
    for name in labeled:
        mask(root / 'SegmentationClassAug' / f'{name}.png', 60, 83, 21)
    for name in val:
        mask(root / 'SegmentationClass' / f'{name}.png', 60, 83, 21, palette=True)
    write(root / 'ImageSets' / 'Segmentation' / 'val.txt', val)
    for split in VOC_LISTS:
        write(root / 'splits/voc' / split / 'labeled.txt', labeled)
        write(root / 'splits/voc' / split / 'unlabeled.txt', unlabeled)

    root = roots['CITYSCAPES_ROOT']
    names = [f'{city}/{city}_00000{i}_000019' for city in ('aachen', 'bochum') for i in range(3)]
    for name in names + ['frankfurt/frankfurt_000000_000294', 'munster/munster_000000_000019']:
        part = 'train' if name in names else 'val'
        image(root / 'leftImg8bit' / part / f'{name}_leftImg8bit.png', 64, 128)
        if name in names[:3] or part == 'val':
            mask(root / 'gtFine' / part / f'{name}_gtFine_labelTrainIds.png', 64, 128, 19)
    for split in CITYSCAPES_LISTS:
        write(root / 'splits/cityscapes' / split / 'labeled.txt', names[:3])
        write(root / 'splits/cityscapes' / split / 'unlabeled.txt', names[3:])

    root = roots['COCO_ROOT']
    for part, names in (('train2017', [f'{i:012d}' for i in range(6)]), ('val2017', ['000000000139', '000000000285'])):
        for name in names:
            image(root / part / f'{name}.jpg', 60, 83)
            if name in names[:3]:
                mask(root / 'masks' / part / f'{name}.png', 60, 83, 81)
    for count in COCO_LISTS:
        write(root / f'splits/coco/{count}/labeled.txt', [f'{i:012d}' for i in range(3)])

    with pytest.MonkeyPatch.context() as patch:
        for variable, path in roots.items():
            patch.setenv(variable, str(path))
        yield roots


@pytest.fixture
def train_two_steps(tmp_path, data_roots):
    """Function that trains a config for two steps by the command line and validates.

    It returns the records of both steps and of the validation, and the state dict of the checkpoint.
    """

    def train(leaf, options):
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT),
               **{key: str(path) for key, path in data_roots.items()}}
        env.pop('LOCAL_RANK', None)
        command = [sys.executable, ROOT / 'tools/train.py', ROOT / 'configs' / leaf, '--work-dir', tmp_path,
                   '--cfg-options', *SMALL, *options]
        result = subprocess.run([*map(str, command)], env=env, text=True, timeout=300, cwd=tmp_path,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert result.returncode == 0, result.stdout[-4000:]
        assert list(tmp_path.glob('best_mIoU_iter_2.pth'))
        log, = tmp_path.glob('*/vis_data/scalars.json')
        state = torch.load(tmp_path / 'iter_2.pth', map_location='cpu', weights_only=False)['state_dict']
        return (*map(json.loads, log.read_text().splitlines()), state)

    return train
