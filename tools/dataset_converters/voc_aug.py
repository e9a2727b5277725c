"""Builds Pascal VOC 2012 with SBD's masks, 10,582 training images, from the two official archives.

    python tools/dataset_converters/voc_aug.py VOCtrainval_11-May-2012.tar benchmark.tgz

Each of both is an archive, or the folder that it was unpacked into. Archives are unpacked into OUT (default
data/VOCdevkit/VOC2012), SBD's into OUT/SBD; for a folder OUT is that folder, and with --out it is linked from there.

    train: (SBD train + SBD val + VOC train) without VOC val; VOC's own mask where there is one, else SBD's
    OUT/SegmentationClassAug/<id>.png (0..20, 255), OUT/ImageSets/Segmentation/trainaug.txt, OUT/voc_aug.json

VOC's own masks are compared with their known class histogram; a difference is a warning. Called again, it checks what
is there and goes on.
"""
import sys
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional

import numpy as np
from archives import find_root, gather, unpack
from conversion import (
    Mask,
    check_counts,
    check_labels,
    digest,
    guard,
    link,
    locked,
    make_parser,
    parallel,
    read_labels,
    read_lines,
    require,
    store,
    summarize,
    write_lines,
)

RECIPE = 'voc_aug-1'
OUT = Path('data/VOCdevkit/VOC2012')
COUNTS = dict(train=10582, val=1449)
CLASSES = ('background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
           'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
# Pixels of each class, and of the void border, in the masks of ImageSets/Segmentation/train.txt. Counted by others, who
# agree: github.com/meetps/pytorch-semseg issue 46 (without the border), and a public script that lists all 22.
KNOWN = (182014429, 1780580, 758311, 2232247, 1514260, 1517186, 4375622, 3494749, 6752515, 2861091, 2060925, 3381632,
         4344951, 2283739, 2888641, 11995853, 1670340, 2254463, 3612229, 3984238, 2349235, 14335564)
VOC_SOURCE = 'they are in VOCtrainval_11-May-2012.tar of the PASCAL VOC 2012 site (host.robots.ox.ac.uk)'
SBD_SOURCE = 'they are in benchmark.tgz of the Semantic Boundaries Dataset (Berkeley, semantic contours)'
LISTS = 'ImageSets/Segmentation'


class Item(NamedTuple):
    """One training image: its files, and where its mask goes."""
    name: str
    image: Path
    source: Path  # VOC's PNG or SBD's MAT
    target: Path


def wanted_of_voc(name: str) -> Optional[str]:
    """Path below OUT of a file in VOC's archive."""
    _, found, rest = name.partition('VOCdevkit/VOC2012/')
    return rest if found and rest.startswith(('JPEGImages/', 'SegmentationClass/', f'{LISTS}/')) else None


def wanted_of_sbd(name: str) -> Optional[str]:
    """Path below OUT of a file in SBD's archive: the class masks and the two lists."""
    _, found, rest = name.partition('dataset/')
    return f'SBD/{rest}' if found and (rest.startswith('cls/') or rest in ('train.txt', 'val.txt')) else None


def find_sbd(source: Path, out: Path) -> Path:
    """The folder with SBD's lists and ``cls``."""
    if not source.exists():
        raise FileNotFoundError(f'no such file or folder: {source}')
    if source.is_dir():
        return find_root(source, ['', 'dataset', 'benchmark_RELEASE/dataset', 'SBD'], ['cls'], [source])
    unpack(source, out, wanted_of_sbd)
    return find_root(out, ['SBD'], ['cls'], [source])


def plan(root: Path, sbd: Path, out: Path) -> List[Item]:
    """The training images, by id."""
    require([root / LISTS / f'{part}.txt' for part in ('train', 'val')], 'lists', VOC_SOURCE)
    require([sbd / f'{part}.txt' for part in ('train', 'val')], 'lists', SBD_SOURCE)
    fine, val = (set(read_lines(root / LISTS / f'{part}.txt')) for part in ('train', 'val'))
    names = sorted(fine.union(*(read_lines(sbd / f'{part}.txt') for part in ('train', 'val'))) - val)
    check_counts(dict(train=len(names), val=len(val)), COUNTS, 'the lists of VOC or SBD are not the official ones')
    items = [Item(name, root / f'JPEGImages/{name}.jpg',
                  root / f'SegmentationClass/{name}.png' if name in fine else sbd / f'cls/{name}.mat',
                  out / f'SegmentationClassAug/{name}.png') for name in names]
    require([item.image for item in items] + [root / f'JPEGImages/{name}.jpg' for name in sorted(val)], 'images',
            VOC_SOURCE)
    require([item.source for item in items if item.source.suffix == '.png'] +
            [root / f'SegmentationClass/{name}.png' for name in sorted(val)], 'masks', VOC_SOURCE)
    require([item.source for item in items if item.source.suffix == '.mat'], 'masks', SBD_SOURCE)
    return items


def read_mat(path: Path) -> np.ndarray:
    """The class mask of an annotation of SBD, uint8 [H, W]."""
    from scipy.io import loadmat
    try:
        return np.asarray(loadmat(path, squeeze_me=True, struct_as_record=False)['GTcls'].Segmentation, np.uint8)
    except Exception as error:  # a damaged file ends in errors of many types
        raise ValueError(f'{path} is no class annotation of SBD ({type(error).__name__}: {error}); unpack '
                         'benchmark.tgz again') from error


def convert(item: Item) -> Mask:
    """Writes one mask."""

    def make() -> np.ndarray:
        labels = (read_mat if item.source.suffix == '.mat' else read_labels)(item.source)
        check_labels(labels, item.source, item.image, highest=20)
        return labels

    return store(item.target, item.name, RECIPE, make)


def inspect(item: Item) -> Mask:
    """Reads one validation mask, which stays as it is."""
    labels = read_labels(item.source)
    check_labels(labels, item.source, item.image, highest=20)
    return Mask(item.name, digest(labels), np.bincount(labels.ravel(), minlength=256), 'read')


def compare(masks: Iterable[Mask]) -> None:
    """Compares VOC's own training masks with their known histogram and says what it found."""
    counts = sum(mask.counts for mask in masks)
    wrong = [f'{name} {count:,} pixels, known {known:,}'
             for name, count, known in zip((*CLASSES, 'void'), [*counts[:21], counts[255]], KNOWN, strict=True)
             if count != known]
    if wrong:
        print(f"warning: {len(wrong)} of {len(KNOWN)} labels in the masks of VOC's train.txt differ from the known "
              f'class histogram, such as {wrong[0]}: is this the official archive? {VOC_SOURCE}', file=sys.stderr)
    else:
        print("the masks of VOC's train.txt have the known class histogram")


def main(argv: Optional[List[str]] = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('voc', type=Path, help='VOCtrainval_11-May-2012.tar, or the folder VOCdevkit/VOC2012')
    parser.add_argument('sbd', type=Path, help='benchmark.tgz, or the folder benchmark_RELEASE/dataset')
    args = parser.parse_args(argv)
    root, out = gather([args.voc], args.out, OUT, wanted_of_voc, ['VOC2012', 'VOCdevkit/VOC2012'], [LISTS])
    sbd = find_sbd(args.sbd, out)
    with locked(out):
        items = plan(root, sbd, out)
        val = read_lines(root / LISTS / 'val.txt')
        for name in ('JPEGImages', 'SegmentationClass', f'{LISTS}/train.txt', f'{LISTS}/val.txt'):
            link(root / name, out / name)
        masks = parallel(convert, items, args.workers)
        checks = [Item(name, root / f'JPEGImages/{name}.jpg', root / f'SegmentationClass/{name}.png', root)
                  for name in val]
        compare(mask for item, mask in zip(items, masks, strict=True) if item.source.suffix == '.png')
        summarize(out, RECIPE, dict(train=masks, val=parallel(inspect, checks, args.workers)), CLASSES)
        write_lines(out / LISTS / 'trainaug.txt', [item.name for item in items])


if __name__ == '__main__':
    sys.exit(guard(main))
