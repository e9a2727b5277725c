"""Which image files there are: suffixes, folders at every depth, list files. Imports no torch."""
import logging
import os
import os.path as osp
import re
from typing import Dict, List, Optional, Sequence, Tuple

import mmengine
import mmengine.fileio as fileio
from mmengine.logging import print_log

IMG_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
_PAIR = re.compile(rf'(.+(?:{"|".join(map(re.escape, IMG_SUFFIXES))}))[\s,]+'
                   rf'(\S.*(?:{"|".join(map(re.escape, MASK_SUFFIXES))}))', re.IGNORECASE)


def strip_suffix(name: str, suffixes: Sequence[str]) -> str:
    """A name without the longest of ``suffixes`` (lower case) that it ends in, in any case; '/' between folders."""
    lower = name.lower()
    length = max((len(s) for s in suffixes if lower.endswith(s)), default=0)
    return name[:len(name) - length].replace(os.sep, '/')


def walk(folder: str, suffixes: Sequence[str], leave_out: Sequence[str] = ()) -> List[str]:
    """Names of all files below a folder that end in one of ``suffixes``, at every depth.

    Hidden files and folders are left out. Links are followed, each folder is entered once: links that lead back up do
    not hang the search, and a folder that is there under its own name and as a link is listed under its own name.

    Args:
        folder (str): Where to look.
        suffixes (Sequence[str]): In lower case; the files' case does not matter.
        leave_out (Sequence[str]): Absolute paths of folders that are not searched.

    Returns:
        list[str]: Relative to ``folder``, sorted.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If a folder below it cannot be read.
    """
    if not osp.isdir(folder):
        where = '' if osp.isabs(folder) else f' (seen from {os.getcwd()})'
        raise FileNotFoundError(f'folder not found: {folder or "(empty path)"}{where}')
    ends, names, entered = tuple(suffixes), [], set()
    folders, links = [''], []
    while folders or links:
        # Links wait until all real folders are listed, so that the own name of a folder wins.
        here = folders.pop() if folders else links.pop(0)
        path = osp.join(folder, here) if here else folder
        try:
            stat = os.stat(path)
            if (stat.st_dev, stat.st_ino) in entered or osp.abspath(path) in leave_out:
                continue
            entered.add((stat.st_dev, stat.st_ino))
            with os.scandir(path) as entries:
                visible = sorted((e for e in entries if not e.name.startswith('.')), key=lambda e: e.name)
        except OSError as error:
            raise ValueError(f'cannot read folder {path}: {error.strerror}; make it readable or move it') from error
        for entry in visible:
            name = osp.join(here, entry.name) if here else entry.name
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif name.lower().endswith(ends):
                names.append(name)
    return sorted(names)


def drop_twins(names: Sequence[str], where: str) -> List[str]:
    """Leaves one of several files that differ in the suffix only; PNG loses, as it is what masks are.

    ``day/a.jpg`` beside ``day/a.png`` is an image and its mask, or the same picture twice. A warning tells how many.

    Args:
        names (Sequence[str]): Of files.
        where (str): For the warning.

    Returns:
        list[str]: Order kept.
    """
    if len({osp.splitext(name)[1].lower() for name in names}) < 2:
        return list(names)
    best: Dict[str, str] = {}
    twin: Optional[Tuple[str, str]] = None
    for name in names:
        stem, suffix = osp.splitext(name)
        other = best.setdefault(stem, name)
        if other is not name:
            best[stem] = other if suffix.lower() == '.png' else name
            twin = twin or (best[stem], name if best[stem] is other else other)
    if twin is None:
        return list(names)
    kept = [name for name in names if best[osp.splitext(name)[0]] is name]
    print_log(f'{where}: {len(names) - len(kept)} files have the name of another image and another suffix, such as '
              f'{twin[1]} beside {twin[0]}: taken for masks or copies and left out', 'current', logging.WARNING)
    return kept


def read_list(path: str, backend_args: Optional[dict] = None) -> List[str]:
    """Lines of a list file without surrounding blanks, empty ones left out.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not fileio.exists(path, backend_args=backend_args):
        raise FileNotFoundError(f'list of images not found: {path}')
    lines = (line.strip('\ufeff \t\r') for line in mmengine.list_from_file(path, backend_args=backend_args))
    return [line for line in lines if line]


def split_pair(line: str) -> Tuple[str, Optional[str]]:
    """``'img/a.jpg mask/a.png'`` (blank, tab or comma between) -> both; any other line -> itself and None.

    At a tab also names of other suffixes, or of none, are two.
    """
    if line.count('\t') == 1:
        image, mask = map(str.strip, line.split('\t'))
        return image, mask or None
    # Most lines are one short name: no blank and no comma, no regular expression.
    if ' ' in line or ',' in line:
        match = _PAIR.fullmatch(line)
        if match:
            return match.group(1), match.group(2)
    return line, None
