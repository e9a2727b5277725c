"""Writes which images are labeled: OUT/labeled.txt, OUT/unlabeled.txt and OUT/partition.json.

Draw from your own data; every class occurs, the same seed gives the same lists on every machine, and the lists of a
smaller count are part of those of a larger one:

    python tools/dataset_converters/make_partition.py --img-dir data/mine/images --ann-dir data/mine/masks \\
        --count 20 --seed 0 --out data/mine/splits/20

Or take over a published partition from a checkout of the code that ships it:

    python tools/dataset_converters/make_partition.py --published ../UniMatch --family voc_classic --setting 183 \\
        --out data/VOCdevkit/VOC2012/splits/voc/classic/183
"""
import argparse
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Container, Dict, FrozenSet, List, Optional, Sequence, Tuple

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import numpy as np
from mmengine.utils import ProgressBar
from PIL import Image

from mmseg_semi.datasets.image_lists import IMG_SUFFIXES, MASK_SUFFIXES, outside, strip_suffix, walk
from mmseg_semi.datasets.mask_hint import Place, check_any_class, cut_values, partner_hint, wrong_mask
from mmseg_semi.datasets.partition import KINDS, check_fine, choices, digest, published, read_list
from mmseg_semi.datasets.partition_draw import draw, group_images
from mmseg_semi.files import write_text

UNVERIFIED = 'family as stated, not verified'


def mask_classes(path: str, place: Place) -> Tuple[Optional[FrozenSet[int]], str]:
    """Values in a mask, or why it cannot be read or training would read other ones."""
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        return None, f'{path}: cannot be read: {error}'
    if values.ndim != 2:
        return None, (f'{path}: a mask has one channel of class indices, found mode {picture.mode}; convert it: '
                      'python tools/dataset_converters/convert_masks.py --help')
    cut = cut_values(path)
    if cut:
        return None, wrong_mask(path, cut, 255, place=place)
    return frozenset(np.unique(values).tolist()), ''


def scan(paths: Sequence[str], place: Place, jobs: int) -> List[FrozenSet[int]]:
    """Classes of every mask, in order.

    Raises:
        ValueError: If a mask cannot be read or holds values outside 0 to 255 or fractions.
    """
    bar = ProgressBar(len(paths), file=sys.stderr)
    found = []
    with ThreadPoolExecutor(jobs) as pool:  # decoding leaves Python's lock; a process would first import torch
        for classes, problem in pool.map(lambda path: mask_classes(path, place), paths):
            if classes is None:
                pool.shutdown(cancel_futures=True)
                raise ValueError(problem)
            found.append(classes)
            bar.update()
    sys.stderr.write('\n')
    return found


def files(folder: str, suffixes: Sequence[str], option: str, other: Optional[str] = None) -> Dict[str, str]:
    """Id -> path of every image below a folder, without what lies in the ``other`` folder below it.

    Raises:
        FileNotFoundError: If the folder is not there or holds none.
        ValueError: If two files have one id.
    """
    found: Dict[str, str] = {}
    try:
        names = walk(folder, suffixes)
        names = outside(names, folder, other) if other else names
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{option}: {error}') from None
    for name in names:
        key = strip_suffix(name, suffixes)
        if key in found:
            ends = sorted((os.path.splitext(path)[1] for path in (found[key], name)),
                          key=lambda end: end.lower() == '.png')  # which is the mask, if one is
            raise ValueError(f'{option}: {found[key]} and {os.path.join(folder, name)} have the same name; if one is '
                             f"the other's mask: --img-suffix {ends[0]} --seg-map-suffix {ends[1]}")
        found[key] = os.path.join(folder, name)
    if not found:
        raise FileNotFoundError(f'{option}: no file in {folder} ends in {" ".join(suffixes)}')
    return found


def endings(suffix: Optional[str], usual: Sequence[str]) -> Sequence[str]:
    """The ending that was asked for, else the usual ones."""
    return (suffix.lower(), ) if suffix else usual


def same_folder(args: argparse.Namespace) -> bool:
    """Whether masks lie beside their images."""
    return os.path.isdir(args.ann_dir) and os.path.samefile(args.img_dir, args.ann_dir)


def other_formats(args: argparse.Namespace, stems: Container[str], suffixes: Sequence[str]) -> str:
    """Whether images without mask have one in another format; beside the images there are only the images."""
    return '' if same_folder(args) or not os.path.isdir(args.ann_dir) else partner_hint(args.ann_dir, stems, suffixes)


def own(args: argparse.Namespace) -> Tuple[Dict[str, List[str]], dict]:
    """Draws a partition of the user's data."""
    images = files(args.img_dir, endings(args.img_suffix, IMG_SUFFIXES), '--img-dir', args.ann_dir)
    suffixes = endings(args.seg_map_suffix, MASK_SUFFIXES)
    try:
        masks = files(args.ann_dir, suffixes, '--ann-dir', args.img_dir)
    except FileNotFoundError as error:
        hint = other_formats(args, images, suffixes)
        raise FileNotFoundError(f'{error}. {hint}' if hint else str(error)) from None
    with_mask, without = sorted(set(images) & set(masks)), set(images) - set(masks)
    hint = other_formats(args, without, suffixes) if without else ''
    if not with_mask:
        raise ValueError(f'no image of {args.img_dir} has a mask in {args.ann_dir}; names are compared without suffix: '
                         f'{next(iter(images))} and {next(iter(masks))}; see --img-suffix and --seg-map-suffix' +
                         (f'. {hint}' if hint else ''))
    if hint:
        print(f'note: {len(without)} images have no mask. {hint}', file=sys.stderr)
    count = args.count
    if count is None:
        count = math.floor(args.fraction * len(with_mask) + Fraction(1, 2))
        if not count:
            raise ValueError(f'--fraction {args.fraction} of {len(with_mask)} images with masks is less than half an '
                             f'image; ask for 1/{len(with_mask)} or more, or for --count 1')
    groups = group_images(with_mask, args.group_by)
    classes = {}
    if args.stratify:
        place = Place(args.ann_dir, suffixes[0] if same_folder(args) else '')
        found = scan([masks[name] for name in with_mask], place, args.jobs)
        if frozenset().union(*found) == {0, args.ignore_index}:
            # Training ignores 255: these lists would be drawn, and no run could use them.
            check_any_class([masks[name] for name in with_mask], args.ignore_index, place)
        classes = {name: seen - {args.ignore_index} for name, seen in zip(with_mask, found, strict=True)}
    if count == len(with_mask) and not without:
        raise ValueError(f'{count} labeled images asked for, which are all; none would be unlabeled: ask for 1 to '
                         f'{count - 1}')
    labeled = draw(groups, classes, count, args.seed)
    # An image of a labeled group that has no mask itself would be a near-duplicate on the other side.
    taken = set(labeled)
    beside = set()
    if args.group_by:
        chosen = {group for group, names in groups.items() if set(names) & taken}
        everything = group_images(sorted(images), args.group_by)
        beside = {name for group in chosen for name in everything[group]} - taken
    unlabeled = sorted(set(images) - taken - beside)
    if not unlabeled:
        raise ValueError(f'no image is left to be unlabeled: {len(taken)} are labeled, and the other {len(beside)} are '
                         'of labeled groups; ask for fewer')
    info = dict(seed=args.seed, asked=count, group_by=args.group_by, stratified=args.stratify,
                classes=sorted(set().union(*(classes[name] for name in labeled))) if classes else None,
                left_out=len(beside))
    return dict(labeled=labeled, unlabeled=unlabeled), info


def from_release(args: argparse.Namespace) -> Tuple[Dict[str, List[str]], dict]:
    """Takes over a published partition."""
    images = None
    if args.img_dir:
        images = files(args.img_dir, endings(args.img_suffix, IMG_SUFFIXES), '--img-dir')
    ids, told = published(args.published, args.family, args.setting, images)
    if args.fine_list:
        check_fine(args.family, ids['labeled'], read_list(args.fine_list))
    elif not told:
        # Any lists of these counts pass. What a run logs is this name, so the name says it.
        return ids, dict(name=f'{args.family}/{args.setting} ({UNVERIFIED})')
    return ids, dict(name=f'{args.family}/{args.setting}')


def write(out: Path, ids: Dict[str, List[str]], info: dict) -> str:
    """Writes the three files; files of the same content stay as they are, others are never overwritten.

    Returns:
        str: ``'written'`` or ``'unchanged'``.

    Raises:
        ValueError: If the folder holds other lists.
    """
    digests = {kind: dict(count=len(ids[kind]), sha256=digest(ids[kind])) for kind in KINDS}
    contents = {f'{kind}.txt': ''.join(f'{name}\n' for name in ids[kind]) for kind in KINDS}
    contents['partition.json'] = json.dumps({**info, **digests}, indent=1) + '\n'
    there = {name: (out / name).read_text('utf-8', 'surrogateescape') for name in contents if (out / name).is_file()}
    if there == contents:
        return 'unchanged'
    other = [name for name in there if there[name] != contents[name]]
    if other:
        raise ValueError(f'{out / other[0]} is there and differs; a partition is never overwritten: remove it first, '
                         'or choose another --out')
    for name, content in contents.items():
        write_text(out / name, content)
    return 'written'


def fraction(text: str) -> Fraction:
    """``1/16`` or ``0.0625``."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f'{text!r} is no fraction such as 1/16 or 0.0625') from None
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not above 0 and at most 1')
    return value


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, type=Path, help='folder of the lists')
    mine = parser.add_argument_group('your own data')
    mine.add_argument('--img-dir', help='images, at any depth; with --published: gives the unlabeled list where the '
                      'checkout holds the labeled one only')
    mine.add_argument('--ann-dir', help='masks of the same names; images without one become unlabeled')
    size = mine.add_mutually_exclusive_group()
    size.add_argument('--count', type=int, help='number of labeled images')
    size.add_argument('--fraction', type=fraction, help='share of the images with masks, such as 1/16')
    mine.add_argument('--seed', type=int, default=0)
    mine.add_argument('--group-by', metavar='REGEX', help='images of one group (video, patient) stay on one side; '
                      r"e.g. '^(patient\d+)'. Whole groups are taken until one does not fit into the count")
    mine.add_argument('--no-stratify', dest='stratify', action='store_false', help='do not care for rare classes')
    mine.add_argument('--img-suffix', help='ending of an image, e.g. _leftImg8bit.png (default: common formats)')
    mine.add_argument('--seg-map-suffix', help='ending of a mask, e.g. _gtFine_labelTrainIds.png')
    mine.add_argument('--ignore-index', type=int, default=255, help='value that is no class')
    mine.add_argument('--jobs', type=int, default=os.cpu_count(), help='threads that read masks')
    released = parser.add_argument_group('published partitions', f'families and settings:\n{choices()}')
    released.add_argument('--published', metavar='CHECKOUT', help='of the code that ships the lists, or their folder')
    released.add_argument('--family')
    released.add_argument('--setting', help='number of labeled images')
    released.add_argument('--fine-list', help="VOC's ImageSets/Segmentation/train.txt: checks which family it is")
    args = parser.parse_args(argv)
    needed = ('family', 'setting') if args.published else ('img_dir', 'ann_dir')
    missing = [f'--{name.replace("_", "-")}' for name in needed if getattr(args, name) is None]
    if missing:
        parser.error(f'{" and ".join(missing)} must be given, or see --help for the other way; published partitions '
                     f'are\n{choices()}')
    if not args.published and args.count is None and args.fraction is None:
        parser.error('one of --count and --fraction must be given')
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    if args.published:
        drawn = [name for name in ('ann_dir', 'count', 'fraction', 'group_by')
                 if getattr(args, name) is not None]
        if drawn:
            parser.error(f'--published takes a partition over, --{drawn[0].replace("_", "-")} draws one; choose one')
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Makes the lists.

    Args:
        argv (Sequence[str], optional): Command line without the program.

    Returns:
        int: Exit status.
    """
    args = parse_args(argv)
    try:
        if args.out.exists() and not args.out.is_dir():
            raise ValueError(f'--out {args.out} is a file; name a folder for the lists')
        ids, info = from_release(args) if args.published else own(args)
        done = write(args.out, ids, info)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; nothing was written', file=sys.stderr)
        return 130
    for kind in KINDS:
        print(f'{args.out / kind}.txt: {len(ids[kind])} images, SHA-256 {digest(ids[kind])[:16]}, {done}')
    if UNVERIFIED in info.get('name', ''):
        print(f'{args.family}: {UNVERIFIED}; a folder of lists does not tell whose they are, only their counts were '
              'compared' + (' (--fine-list tells)' if 'voc_blended' in args.family else ''))
    if info.get('asked', len(ids['labeled'])) != len(ids['labeled']):
        print(f'{info["asked"]} labeled images were asked for; whole groups make {len(ids["labeled"])}')
    if info.get('left_out'):
        print(f'{info["left_out"]} images without mask are of labeled groups and stand in neither list')
    return 0


if __name__ == '__main__':
    sys.exit(main())
