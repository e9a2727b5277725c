"""Makes masks of class indices, as mmseg reads them, of masks in colors, gray levels or 0/255.

    python tools/dataset_converters/convert_masks.py masks --list            # what is in there, as a map
    python tools/dataset_converters/convert_masks.py masks masks_indices --map classes.txt
    python tools/dataset_converters/convert_masks.py masks masks_indices --binary   # 0 stays, the other value is 1
    python tools/dataset_converters/convert_masks.py mixed mixed_indices --binary --suffix _mask.png  # beside images

A map has a line per class in the order of the indices, `name: values`; a value is a color (`128,64,128` or `#804080`)
or a gray level or palette index (`7`). The line `ignore: ...` becomes 255. `#` after a blank begins a comment.
"""
import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import numpy as np
from conversion import whole
from mmengine.utils import ProgressBar
from PIL import Image

from mmseg_semi.datasets.image_lists import walk
from mmseg_semi.datasets.mask_folders import SETTINGS

SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif', '.webp', '.jpg', '.jpeg')
LOSSY = ('JPEG', 'MPO')
IGNORE = 255
UNKNOWN = -1


@dataclass
class ClassMap:
    """Names of the classes in the order of their indices, and the value (int or RGB) of a mask that means each."""
    names: List[str]
    index: Dict[object, int] = field(default_factory=dict)

    @property
    def colored(self) -> bool:
        """Whether the values are colors."""
        return isinstance(next(iter(self.index)), tuple)

    def table(self) -> np.ndarray:
        """int16 [2**24] for colors, [2**16] for levels: index of every value, UNKNOWN where there is none."""
        table = np.full(2**24 if self.colored else 2**16, UNKNOWN, np.int16)
        for value, index in self.index.items():
            table[pack(np.array(value)) if self.colored else value] = index
        return table

    def palette(self) -> List[int]:
        """Color of each class, flat; colors of the map if it has any."""
        rng = np.random.default_rng(0)
        colors = rng.integers(256, size=(256, 3))
        colors[0] = 0
        if self.colored:
            for value, index in reversed(self.index.items()):
                colors[index] = value
        return colors.flatten().tolist()


def pack(colors: np.ndarray) -> np.ndarray:
    """RGB [..., 3] as one integer each."""
    colors = colors.astype(np.int32)
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def read_map(path: Path) -> ClassMap:
    """Reads a map.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If a line cannot be read, a value stands twice, or colors and levels are mixed.
    """
    if not path.is_file():
        raise FileNotFoundError(f'--map: file not found: {path}; `convert_masks.py IN --list` prints one to begin with')
    found = ClassMap([])
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        line = re.sub(r'(^|\s)#(\s.*|$)', '', line).strip()
        if not line:
            continue
        name, colon, values = line.partition(':')
        if not colon or not name.strip() or not values.split():
            raise ValueError(f'{path}:{number}: expected `name: value value ...`, found {line!r}')
        index = IGNORE if name.strip() == 'ignore' else len(found.names)
        if index != IGNORE:
            found.names.append(name.strip())
        for text in re.sub(r'\s*,\s*', ',', values).split():
            value = _value(text, f'{path}:{number}')
            if found.index.setdefault(value, index) != index:
                raise ValueError(f'{path}:{number}: {text} stands for another class already')
    if not found.names:
        raise ValueError(f'{path}: no class in it')
    if len(found.names) > IGNORE:
        raise ValueError(f'{path}: {len(found.names)} classes do not fit into 8 bits with 255 = ignore')
    if len({type(value) for value in found.index}) > 1:
        raise ValueError(f'{path}: colors and single numbers are mixed')
    return found


def _value(text: str, where: str) -> object:
    if re.fullmatch('#[0-9a-fA-F]{6}', text):
        return tuple(bytes.fromhex(text[1:]))
    numbers = tuple(int(part) for part in text.split(',') if part.isdigit())
    top = 65535 if len(numbers) == 1 else 255
    if len(numbers) != text.count(',') + 1 or len(numbers) not in (1, 3) or max(numbers) > top:
        raise ValueError(f'{where}: {text!r} is neither a color such as 128,64,128 or #804080 nor a number up to 65535')
    return numbers if len(numbers) == 3 else numbers[0]


def read_values(path: Path, colored: bool, lossy: bool = False,
                fractions: bool = False) -> Tuple[np.ndarray, np.ndarray]:
    """What a mask holds.

    Args:
        path (Path): The mask.
        colored (bool): Whether colors are wanted; gray levels count as colors, palettes are looked up.
        lossy (bool): Whether a JPEG is accepted.
        fractions (bool): Whether the values of a TIFF of floats are accepted as they are.

    Returns:
        tuple[ndarray, ndarray]: [H, W] levels, palette indices or packed colors; [H, W] bool, fully transparent pixels.

    Raises:
        ValueError: If it cannot be read or is of another kind.
    """
    try:
        with Image.open(path) as picture:
            frames = getattr(picture, 'n_frames', 1)
            kind, mode = picture.format, picture.mode
            if mode == 'P' and colored:
                picture = picture.convert('RGBA' if 'transparency' in picture.info else 'RGB')
            pixels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read: {error}') from None
    if kind in LOSSY and not lossy:
        raise ValueError(f'{path}: a JPEG invents values at every edge; save masks as PNG, or if they are 0/255 use '
                         '--binary --threshold 128')
    if frames > 1:
        raise ValueError(f'{path}: holds {frames} pictures, expected one')
    if pixels.dtype.kind == 'f':  # TIFF of floats
        if fractions:
            return pixels, np.zeros(pixels.shape[:2], bool)
        if (pixels % 1 != 0).any():
            raise ValueError(f'{path}: holds fractions; a map has whole numbers, --binary takes any value beside 0')
        pixels = pixels.astype(np.int64)
    if pixels.dtype.kind not in 'bui' or mode in ('CMYK', 'YCbCr', 'LAB', 'HSV'):
        raise ValueError(f'{path}: a mask cannot be of mode {mode}')
    clear = np.zeros(pixels.shape[:2], bool)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        clear, pixels = pixels[..., -1] == 0, pixels[..., :-1]
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all() and not colored:
        pixels = pixels[..., 0]  # gray, stored as color
    elif pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        if not colored:
            raise ValueError(f'{path}: holds colors, but the map has single numbers; `--list` prints the colors')
        return pack(pixels), clear
    pixels = pixels.astype(np.int64)
    if pixels.min() < 0 or pixels.max() > (255 if colored else 65535):
        raise ValueError(f'{path}: values {pixels.min()} to {pixels.max()} are no {"colors" if colored else "levels"}')
    return (pixels * 0x010101 if colored else pixels), clear


class Converter:
    """Converts one mask at a time.

    Args:
        classes (ClassMap, optional): Without it masks are binary.
        threshold (int, optional): Binary masks: values from here on are 1.
        unknown (str): ``'error'`` or ``'ignore'``: what a value is that no class has.
    """

    def __init__(self, classes: Optional[ClassMap], threshold: Optional[int], unknown: str) -> None:
        self.classes, self.threshold, self.unknown = classes, threshold, unknown
        self.names = classes.names if classes else ['background', 'foreground']
        self.table = classes.table() if classes else None
        self.palette = classes.palette() if classes else [0, 0, 0, 255, 255, 255] + [0] * (250 * 3)
        self.other: Dict[int, Path] = {}  # binary: the value beside 0, and who has it

    def label(self, path: Path) -> np.ndarray:
        """Class indices, uint8 [H, W].

        Raises:
            ValueError: If the mask does not fit; names the file and the value.
        """
        colored = bool(self.classes and self.classes.colored)
        values, clear = read_values(path, colored, lossy=self.threshold is not None, fractions=self.table is None)
        if self.table is None:
            return self._binary(path, np.where(clear, 0, values))  # what a brush did not touch
        label = self.table[values]
        label[clear] = UNKNOWN
        wrong = label == UNKNOWN
        if wrong.any() and self.unknown == 'error':
            shown = ', '.join(f'{"transparent" if c else text(v, colored)} ({n} pixels)' for (v, c), n in
                              Counter(zip(values[wrong].tolist(), clear[wrong].tolist(), strict=True)).most_common(4))
            raise ValueError(f'{path}: {shown} in no class of the map; add it, or pass --unknown ignore')
        label[wrong] = IGNORE
        return label.astype(np.uint8)

    def _binary(self, path: Path, values: np.ndarray) -> np.ndarray:
        if self.threshold is not None:
            return (values >= self.threshold).astype(np.uint8)
        present = np.unique(values).tolist()
        others = [value for value in present if value != 0]
        if others:
            self.other.setdefault(others[0], path)
        if len(others) > 1 or len(self.other) > 1:
            found = others if len(others) > 1 else sorted(self.other)
            raise ValueError(f'{path}: binary masks hold 0 and one other value, found {found[:6]}; for a threshold '
                             'pass --threshold, for several classes --map')
        return (values != 0).astype(np.uint8)


def text(value: int, colored: bool) -> str:
    """How a map writes a value."""
    return f'{value >> 16},{value >> 8 & 255},{value & 255}' if colored else str(value)


def masks_below(folder: Path, suffix: Optional[str]) -> List[Path]:
    """All masks below a folder, relative to it, sorted; those only that end in ``suffix``, if it is given.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If two would get one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'folder of masks not found: {folder}')
    ends = (suffix.lower(), ) if suffix else SUFFIXES
    found = [Path(name) for name in walk(str(folder), ends)]
    if not found:
        raise FileNotFoundError(f'no mask in {folder}; they end in {" ".join(ends)}')
    names: Dict[Path, Path] = {}
    for path in found:
        if names.setdefault(path.with_suffix(''), path) != path:
            raise ValueError(f'{folder}: {names[path.with_suffix("")]} and {path} would both become '
                             f'{path.with_suffix(".png")}; if one is an image, name the ending of the masks, such as '
                             f'--suffix {path.suffix}')
    return found


def parallel(task, items: Sequence, jobs: int) -> Iterator:
    """Results in order, with a progress bar; the first error stops all. Decoding leaves Python's lock."""
    bar = ProgressBar(len(items), file=sys.stderr)
    pool = ThreadPoolExecutor(jobs)
    try:
        for result in pool.map(task, items):
            bar.update()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        sys.stderr.write('\n')


def list_values(args: argparse.Namespace) -> int:
    """Prints what is in the masks as a map to begin with."""
    paths = masks_below(args.masks, args.suffix)

    def count(name: Path) -> Tuple[bool, Counter]:
        try:
            values, colored = read_values(args.masks / name, False)[0], False
        except ValueError as error:
            if 'holds colors' not in str(error):
                raise
            values, colored = read_values(args.masks / name, True)[0], True
        return colored, Counter(dict(zip(*(x.tolist() for x in np.unique(values, return_counts=True)), strict=True)))

    pixels, files, kinds = Counter(), Counter(), Counter()
    for colored, counted in parallel(count, paths, args.jobs):
        kinds[colored] += 1
        pixels.update({(colored, value): n for value, n in counted.items()})
        files.update((colored, value) for value in counted)
    if len(kinds) > 1:
        print(f'# {kinds[True]} masks are in colors and {kinds[False]} in single numbers: convert them apart')
    total = sum(pixels.values())
    print(f'# {len(paths)} masks, {len(pixels)} values; name the classes, put them in order, join what is one class')
    for i, ((colored, value), n) in enumerate(pixels.most_common(300)):
        print(f'class_{i}: {text(value, colored)}  # {n / total:.3%} of the pixels, in {files[colored, value]} masks')
    if len(pixels) > 300:
        print(f'# and {len(pixels) - 300} more: these are photographs, or masks saved with smoothed edges')
    return 0


def convert(args: argparse.Namespace) -> int:
    """Converts all masks that are not converted yet, or were changed since."""
    source, out = args.masks.resolve(), args.out.resolve()
    if source == out or source in out.parents or out in source.parents:
        raise ValueError(f'OUT {args.out} must lie outside of {args.masks}')
    classes = read_map(args.map) if args.map else None
    converter = Converter(classes, args.threshold, args.unknown)
    names = masks_below(args.masks, args.suffix)
    _claim(out, dict(source=os.path.relpath(source, out), suffix=args.suffix, threshold=args.threshold,
                     unknown=args.unknown, binary=args.binary,
                     map=hashlib.sha256(repr(classes).encode()).hexdigest() if classes else None))
    made = {name: target.stat().st_mtime for name in names if (target := (out / name).with_suffix('.png')).is_file()}
    stale = {name for name, time in made.items() if (source / name).stat().st_mtime > time}
    jobs = sorted(set(names) - set(made) | stale)
    if made:
        print(f'{len(names) - len(jobs)} of {len(names)} masks were converted before' +
              (f'; {len(stale)} were changed since and are converted again' if stale else ''))

    def one(name: Path) -> np.ndarray:
        label, target = converter.label(args.masks / name), (out / name).with_suffix('.png')
        picture = Image.fromarray(label)
        picture.putpalette(converter.palette)
        with whole(target) as part:
            picture.save(part, format='PNG')
        return np.bincount(label.ravel(), minlength=256)

    histogram = np.zeros(256, np.int64)
    for counted in parallel(one, jobs, args.jobs) if jobs else ():
        histogram += counted
    if jobs:
        _report(converter.names, histogram)
    print(f'{len(names)} masks in {args.out}; classes=({", ".join(map(repr, converter.names))})')
    return 0


def _claim(out: Path, settings: dict) -> None:
    """Remembers how a folder was made, so that a second run goes on and does not mix two maps."""
    file = out / SETTINGS
    if file.is_file():
        if json.loads(file.read_text(encoding='utf-8')) != settings:
            raise ValueError(f'{out} was made of other masks or with another map; remove it, or choose another OUT')
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out} is not empty and was not made by this tool; choose another OUT')
    else:
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding='utf-8')


def _report(names: Sequence[str], histogram: np.ndarray) -> None:
    width = max(map(len, (*names, 'ignore')))
    for index, name in (*enumerate(names), (IGNORE, 'ignore')):
        print(f'{index:>4} {name:<{width}} {histogram[index] / histogram.sum():>9.3%} of the pixels'
              f'{"  (never seen)" if index != IGNORE and not histogram[index] else ""}')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('masks', type=Path, metavar='IN', help='folder of masks, searched at every depth')
    parser.add_argument('out', type=Path, nargs='?', metavar='OUT', help='folder for PNGs of class indices')
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument('--map', type=Path, help='text file, see above')
    kind.add_argument('--binary', action='store_true', help='0 is background, the one other value foreground')
    kind.add_argument('--list', action='store_true', help='only print the values in the masks, as a map')
    parser.add_argument('--suffix', help='ending of a mask, for masks beside their images: .png, _mask.png')
    parser.add_argument('--threshold', type=int, help='with --binary: values from here on are foreground')
    parser.add_argument('--unknown', choices=('error', 'ignore'), default='error',
                        help='with --map: what becomes of values in no class, and of transparent pixels')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='threads')
    args = parser.parse_args(argv)
    if not args.list and args.out is None:
        parser.error('OUT is missing')
    if args.threshold is not None and not args.binary:
        parser.error('--threshold goes with --binary')
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Lists or converts.

    Args:
        argv (Sequence[str], optional): Command line without the program.

    Returns:
        int: Exit status.
    """
    args = parse_args(argv)
    try:
        return list_values(args) if args.list else convert(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; the same command goes on', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
