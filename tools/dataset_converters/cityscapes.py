"""Makes the masks of Cityscapes that are trained on: 19 trainIds, 255 for everything else.

    python tools/dataset_converters/cityscapes.py leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip
    python tools/dataset_converters/cityscapes.py /data/cityscapes      # the folder that both were unpacked into

Archives are unpacked into OUT (default data/cityscapes); for a folder OUT is that folder, and with --out the
photographs are linked from there. A mask comes from *_gtFine_labelIds.png, or where that is missing from
*_gtFine_polygons.json.

    OUT/gtFine/{train,val}/<city>/<frame>_gtFine_labelTrainIds.png, OUT/cityscapes.json

Called again, it checks what is there and goes on.
"""
import json
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np
from archives import gather
from conversion import (
    Mask,
    check_counts,
    check_labels,
    guard,
    link,
    locked,
    make_parser,
    parallel,
    read_labels,
    require,
    store,
    summarize,
)
from PIL import Image, ImageDraw

RECIPE = 'cityscapes-1'
OUT = Path('data/cityscapes')
COUNTS = dict(train=2975, val=500)
SOURCE = ('they are in leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of the official site '
          '(cityscapes-dataset.com, free registration)')
# The place is the id, the license plate (-1) apart.
LABELS = ('unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static', 'dynamic', 'ground', 'road',
          'sidewalk', 'parking', 'rail track', 'building', 'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole',
          'polegroup', 'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car',
          'truck', 'bus', 'caravan', 'trailer', 'train', 'motorcycle', 'bicycle')
CLASSES = ('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation',
           'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
TRAIN_IDS = np.array([CLASSES.index(name) if name in CLASSES else 255 for name in LABELS], np.uint8)


class Item(NamedTuple):
    """One frame: its files, and where its mask goes."""
    name: str
    image: Path
    ids: Path
    polygons: Path
    target: Path


def wanted(name: str) -> Optional[str]:
    """Path below OUT of a file in an archive: the parts with labels, and the two kinds of files that are read."""
    folder, part = (name.split('/') + [''])[:2]
    if part not in COUNTS:
        return None
    kept = folder == 'leftImg8bit' or folder == 'gtFine' and name.endswith(('_labelIds.png', '_polygons.json'))
    return name if kept else None


def plan(root: Path, out: Path, part: str) -> List[Item]:
    """The frames of a part, by name."""
    items, suffix = [], '_leftImg8bit.png'
    for image in sorted((root / 'leftImg8bit' / part).glob(f'*/*{suffix}')):
        name = f'{image.parent.name}/{image.name[:-len(suffix)]}'
        base = root / 'gtFine' / part / name
        items.append(Item(name, image, Path(f'{base}_gtFine_labelIds.png'), Path(f'{base}_gtFine_polygons.json'),
                          out / 'gtFine' / part / f'{name}_gtFine_labelTrainIds.png'))
    return items


def draw(path: Path) -> np.ndarray:
    """TrainIds of the polygons of a frame, uint8 [H, W], later ones over earlier ones."""
    try:
        content = json.loads(path.read_text())
        canvas = Image.new('L', (content['imgWidth'], content['imgHeight']), 255)
        for thing in content['objects']:
            label = thing['label']
            if label not in LABELS and label.endswith('group'):
                label = label[:-len('group')]
            if thing.get('deleted') or label == 'license plate':
                continue
            if label not in LABELS:
                raise ValueError(f'unknown label {label!r}')
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in thing['polygon']],
                                           fill=int(TRAIN_IDS[LABELS.index(label)]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no annotation of Cityscapes ({type(error).__name__}: {error}); unpack '
                         'gtFine_trainvaltest.zip again') from error
    return np.array(canvas)


def convert(item: Item) -> Mask:
    """Writes one mask."""

    def make() -> np.ndarray:
        if not item.ids.is_file():
            labels = draw(item.polygons)
            check_labels(labels, item.polygons, item.image, highest=len(CLASSES) - 1)
            return labels
        ids = read_labels(item.ids)
        check_labels(ids, item.ids, item.image, highest=len(LABELS) - 1, ignore=None)
        return TRAIN_IDS[ids]

    return store(item.target, item.name, RECIPE, make)


def main(argv: Optional[List[str]] = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('sources', nargs='+', type=Path, help='both archives, or the folder of leftImg8bit and gtFine')
    args = parser.parse_args(argv)
    root, out = gather(args.sources, args.out, OUT, wanted, ['cityscapes'], ['leftImg8bit'])
    with locked(out):
        plans = {part: plan(root, out, part) for part in COUNTS}
        check_counts({part: len(items) for part, items in plans.items()}, COUNTS, SOURCE)
        items = [item for part in plans.values() for item in part]
        require([item.ids if item.ids.is_file() else item.polygons for item in items], 'annotations', SOURCE)
        link(root / 'leftImg8bit', out / 'leftImg8bit')
        masks = parallel(convert, items, args.workers)
        train = len(plans['train'])
        summarize(out, RECIPE, dict(train=masks[:train], val=masks[train:]), CLASSES)


if __name__ == '__main__':
    sys.exit(guard(main))
