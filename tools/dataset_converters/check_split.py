"""Checks the lists of a partition: counts, no image twice, nothing on both sides, nothing of the validation set.

    python tools/dataset_converters/check_split.py data/mine/splits/20 --val data/mine/splits/val.txt

Exit status: 0 in order, 1 something is wrong, 2 could not be checked.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from mmseg_semi.datasets.image_lists import IMG_SUFFIXES
from mmseg_semi.datasets.partition import KINDS, check_disjoint, digest, list_id, read_list


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='with labeled.txt and unlabeled.txt')
    parser.add_argument('--val', nargs='+', default=[], type=Path, help='lists of validation and test images')
    parser.add_argument('--img-suffix', action='append', default=[],
                        help='ending that some list writes and another does not, e.g. _leftImg8bit.png')
    return parser.parse_args(argv)


def read_ids(path: Path, suffixes: Sequence[str]) -> List[str]:
    """Ids of a list; in one that make_partition.py wrote they stand as they are: `scan.tif` is `scan.tif.jpg`."""
    lines = read_list(path)
    try:
        own = json.loads((path.parent / 'partition.json').read_text(encoding='utf-8'))[path.stem]['sha256']
    except (OSError, ValueError, KeyError, TypeError):
        own = None
    return lines if digest(lines) == own else [list_id(line, suffixes) for line in lines]


def problems(folder: Path, lists: dict) -> List[str]:
    """What is wrong.

    Raises:
        ValueError: If ``partition.json`` cannot be read.
    """
    found, one_form = _partition_file(folder, lists)
    names = list(lists)
    for i, one in enumerate(names):
        for other in names[i + 1:]:
            if one in KINDS or other in KINDS:
                try:
                    check_disjoint(lists[one], lists[other], one, other, one_form and {one, other} == set(KINDS))
                except ValueError as error:
                    found.append(str(error))
    return found


def _partition_file(folder: Path, lists: dict) -> Tuple[List[str], bool]:
    """What ``partition.json`` says against the lists; whether it made both, which then write images in one way."""
    file, found = folder / 'partition.json', []
    if not file.is_file():
        return found, False
    try:
        info = json.loads(file.read_text(encoding='utf-8'))
        made = {kind: (info[kind]['sha256'], info[kind]['count']) for kind in KINDS}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{file} is damaged: expected count and sha256 of both lists, as make_partition.py writes '
                         'them; remove it to check the lists without it') from None
    for kind, (sha256, count) in made.items():
        if sha256 != digest(lists[kind]):
            found.append(f'{kind}.txt is not the list that partition.json describes: {len(lists[kind])} images, '
                         f'{count} when it was made')
    return found, not found


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Checks and tells.

    Args:
        argv (Sequence[str], optional): Command line without the program.

    Returns:
        int: Exit status.
    """
    args = parse_args(argv)
    try:
        paths = {**{kind: args.folder / f'{kind}.txt' for kind in KINDS}, **{str(path): path for path in args.val}}
        missing = [str(path) for path in paths.values() if not path.is_file()]
        if missing:
            raise FileNotFoundError(f'list of images not found: {", ".join(missing)}')
        wrong, lists = [], {}
        for name, path in paths.items():
            try:
                lists[name] = read_ids(path, (*IMG_SUFFIXES, *args.img_suffix))
            except ValueError as error:
                wrong.append(str(error))
        if not wrong:
            wrong = problems(args.folder, lists)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for name, ids in lists.items():
        print(f'{name}: {len(ids)} images, SHA-256 {digest(ids)[:16]}')
    if not args.val:
        print('validation and test images: not compared, name their lists with --val')
    for problem in wrong:
        print(f'wrong: {problem}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
