"""Checks ADE20K in its SceneParsing release (150 classes) and says what it holds; the masks stay as they are.

    python tools/dataset_converters/ade20k.py ADEChallengeData2016.zip
    python tools/dataset_converters/ade20k.py /data/ADEChallengeData2016

An archive is unpacked into OUT (default data/ade/ADEChallengeData2016); for a folder OUT is that folder, and with --out
it is linked from there. In the masks 0 is "other", which is not counted, and 1..150 are the classes: the configs'
dataset shifts them while it loads (reduce_zero_label), so a converted mask would be shifted twice. Only OUT/ade20k.json
is written.
"""
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np
from archives import gather
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
    summarize,
)

RECIPE = 'ade20k-1'
OUT = Path('data/ade/ADEChallengeData2016')
PARTS = dict(train='training', val='validation')
COUNTS = dict(train=20210, val=2000)
NAMES = 'objectInfo150.txt'
SOURCE = 'they are in ADEChallengeData2016.zip of the MIT Scene Parsing Benchmark (sceneparsing.csail.mit.edu)'


class Item(NamedTuple):
    """One image and its mask."""
    name: str
    image: Path
    mask: Path


def wanted(name: str) -> Optional[str]:
    """Path below OUT of a file in the archive."""
    _, found, rest = name.partition('ADEChallengeData2016/')
    return rest if found and (rest == NAMES or rest.startswith(('images/', 'annotations/'))) else None


def class_names(path: Path) -> List[str]:
    """The 150 names of the release's table."""
    rows = [line.split('\t') for line in read_lines(path)[1:]]
    names = [row[-1].split(',')[0].strip() for row in rows]
    if len(names) != 150:
        raise ValueError(f'{path} names {len(names)} classes; expected 150: unpack ADEChallengeData2016.zip again')
    return names


def inspect(item: Item) -> Mask:
    """Reads one mask."""
    labels = read_labels(item.mask)
    check_labels(labels, item.mask, item.image, highest=150, ignore=None)
    return Mask(item.name, digest(labels), np.bincount(labels.ravel(), minlength=256), 'read')


def main(argv: Optional[List[str]] = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('source', type=Path, help='ADEChallengeData2016.zip, or the folder ADEChallengeData2016')
    args = parser.parse_args(argv)
    root, out = gather([args.source], args.out, OUT, wanted, ['ADEChallengeData2016'], [NAMES])
    with locked(out):
        plans = {part: [Item(image.stem, image, root / 'annotations' / folder / f'{image.stem}.png')
                        for image in sorted((root / 'images' / folder).glob('*.jpg'))]
                 for part, folder in PARTS.items()}
        check_counts({part: len(items) for part, items in plans.items()}, COUNTS, SOURCE)
        items = [item for part in plans.values() for item in part]
        require([item.mask for item in items], 'masks', SOURCE)
        for name in ('images', 'annotations', NAMES):
            link(root / name, out / name)
        masks, train = parallel(inspect, items, args.workers), len(plans['train'])
        summarize(out, RECIPE, dict(train=masks[:train], val=masks[train:]), class_names(out / NAMES), first=1,
                  ignore=0)


if __name__ == '__main__':
    sys.exit(guard(main))
