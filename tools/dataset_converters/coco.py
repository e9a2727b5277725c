"""Makes masks of 81 classes, background and the 80 things, from COCO 2017's instances.

    python tools/dataset_converters/coco.py train2017.zip val2017.zip annotations_trainval2017.zip
    python tools/dataset_converters/coco.py /data/coco      # the folder that they were unpacked into

Archives are unpacked into OUT (default data/coco); for a folder OUT is that folder, and with --out the photographs are
linked from there. Larger objects are painted first, crowds like any object; a pixel belongs to a polygon if its center
does. Pixels of no object are background, 0; nothing is ignored.

    OUT/masks/{train2017,val2017}/<id>.png (0..80), OUT/coco.json

Called again, it checks what is there and goes on.
"""
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

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
    require,
    store,
    summarize,
)

RECIPE = 'coco-1'
OUT = Path('data/coco')
COUNTS = dict(train2017=118287, val2017=5000)
NUM_THINGS = 80
SOURCE = ('they are in train2017.zip, val2017.zip and annotations_trainval2017.zip of the official site '
          '(cocodataset.org, Download)')


class Item(NamedTuple):
    """One image: its files and its objects as (label, segmentation), the largest first."""
    name: str
    image: Path
    size: Tuple[int, int]  # height, width
    objects: List[tuple]
    target: Path


def wanted(name: str) -> Optional[str]:
    """Path below OUT of a file in an archive."""
    folder = name.split('/')[0]
    return name if folder in COUNTS or name in [annotations(part) for part in COUNTS] else None


def annotations(part: str) -> str:
    return f'annotations/instances_{part}.json'


def plan(root: Path, out: Path, part: str) -> Tuple[List[Item], List[str]]:
    """The images of a part, by name, and the names of the 80 things in the order of their labels 1..80."""
    path = root / annotations(part)
    require([path], 'annotations', SOURCE)
    print(f'reading {path}')
    try:
        content = json.loads(path.read_bytes())
        categories = sorted(content['categories'], key=lambda category: category['id'])
        label = {category['id']: i for i, category in enumerate(categories, start=1)}
        objects = defaultdict(list)
        for thing in sorted(content['annotations'], key=lambda thing: (-thing['area'], thing['id'])):
            objects[thing['image_id']].append((label[thing['category_id']], thing['segmentation']))
        items = [Item(Path(image['file_name']).stem, root / part / image['file_name'],
                      (image['height'], image['width']), objects.get(image['id'], []),
                      out / f"masks/{part}/{Path(image['file_name']).stem}.png")
                 for image in sorted(content['images'], key=lambda image: image['file_name'])]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no file of instances ({type(error).__name__}: {error}); unpack '
                         'annotations_trainval2017.zip again') from error
    if len(categories) != NUM_THINGS:
        raise ValueError(f'{path} has {len(categories)} categories, expected {NUM_THINGS}: not the official file')
    return items, [category['name'] for category in categories]


def paint(canvas: np.ndarray, label: int, segmentation) -> None:
    """Sets the pixels of one object in ``canvas``, uint8 [H, W]; polygons, or run lengths down the columns."""
    if isinstance(segmentation, dict):
        counts, size = segmentation['counts'], tuple(segmentation['size'])
        if isinstance(counts, str) or size != canvas.shape or sum(counts) != canvas.size:
            raise ValueError(f'run lengths of size {size} do not fit an image of {canvas.shape}')
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T
        canvas[inside] = label
        return
    for polygon in segmentation:
        fill(canvas, label, polygon)


def fill(canvas: np.ndarray, label: int, polygon: Sequence[float]) -> None:
    """Sets the pixels whose centers are inside a polygon [x0, y0, x1, y1, ...] by the even-odd rule.

    OpenCV and PIL also fill every pixel that the outline touches, so their objects are fatter than those of COCO's own
    decoder, and not the same in all of their versions. Here the rows count the edges on the left of a center.
    """
    start = np.asarray(polygon, float).reshape(-1, 2)
    low = np.clip(np.floor(start.min(0)), 0, canvas.shape[::-1]).astype(int)
    high = np.clip(np.ceil(start.max(0)), 0, canvas.shape[::-1]).astype(int)
    width, height = np.maximum(high - low, 0)
    start = start - low
    end = np.roll(start, -1, axis=0)
    up = (start[:, 1] > end[:, 1])[:, None]
    (x, y), (x_end, y_end) = np.where(up, end, start).T, np.where(up, start, end).T
    first, last = (np.clip(np.ceil(edge - 0.5), 0, height).astype(int) for edge in (y, y_end))
    rows = last - first  # whose centers the edge passes
    edge = np.repeat(np.arange(len(rows)), rows)
    row = first[edge] + np.arange(len(edge)) - (np.cumsum(rows) - rows)[edge]
    crossing = x[edge] + (row + 0.5 - y[edge]) * (x_end - x)[edge] / (y_end - y)[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    inside = crossings.cumsum(1)[:, :width] % 2 == 1
    canvas[low[1]:high[1], low[0]:high[0]][inside] = label


def convert(item: Item) -> Mask:
    """Writes one mask."""

    def make() -> np.ndarray:
        canvas = np.zeros(item.size, np.uint8)
        try:
            for label, segmentation in item.objects:
                paint(canvas, label, segmentation)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f'the annotations of {item.image.name} cannot be painted: {error}; unpack '
                             'annotations_trainval2017.zip again') from error
        check_labels(canvas, item.target, item.image, highest=NUM_THINGS, ignore=None)
        return canvas

    return store(item.target, item.name, RECIPE, make)


def main(argv: Optional[List[str]] = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('sources', nargs='+', type=Path, help='the three archives, or the folder of train2017, val2017 '
                        'and annotations')
    args = parser.parse_args(argv)
    root, out = gather(args.sources, args.out, OUT, wanted, ['coco'], ['annotations'])
    with locked(out):
        masks, counts = {}, {}
        for part in reversed(COUNTS):  # the small part first: mistakes show early
            items, things = plan(root, out, part)
            counts[part] = len(items)
            check_counts(counts, {name: COUNTS[name] for name in counts}, SOURCE)
            require([item.image for item in items], 'images', SOURCE)
            link(root / part, out / part)
            masks[part] = parallel(convert, items, args.workers)
        summarize(out, RECIPE, masks, ['background', *things])


if __name__ == '__main__':
    sys.exit(guard(main))
