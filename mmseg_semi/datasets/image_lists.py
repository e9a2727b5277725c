"""Which image files there are: suffixes, folders at every depth, list files. Imports no torch."""
import logging
import os
import os.path as osp
import re
import unicodedata
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

import mmengine.fileio as fileio
from mmengine.logging import print_log

IMG_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
_PAIR = re.compile(rf'(.+(?:{"|".join(map(re.escape, IMG_SUFFIXES))}))[\s,]+'
                   rf'(\S.*(?:{"|".join(map(re.escape, MASK_SUFFIXES))}))', re.IGNORECASE)


def strip_suffix(name: str, suffixes: Sequence[str]) -> str:
    """A name without the longest of ``suffixes`` (lower case) that it ends in, in any case; '/' between folders.

    Accents are :func:`composed`.
    """
    lower = name.lower()
    length = max((len(s) for s in suffixes if lower.endswith(s)), default=0)
    return composed(name[:len(name) - length].replace(os.sep, '/'))


def composed(name: str) -> str:
    """A name with its accents as other systems than macOS write them, so that ``é`` equals ``e`` and an accent."""
    return name if name.isascii() else unicodedata.normalize('NFC', name)


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
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself leads nowhere, as one to nothing does
                is_folder = False
            if is_folder:
                (links if entry.is_symlink() else folders).append(name)
            elif name.lower().endswith(ends):
                names.append(name)
    return sorted(names)


def outside(names: Sequence[str], folder: str, other: str) -> Sequence[str]:
    """Files below a folder without those of the other folder, where that lies below this one."""
    inner = osp.relpath(other, folder)
    if inner.split(os.sep)[0] in (os.curdir, os.pardir):
        return names
    return [name for name in names if not name.startswith(inner + os.sep)]


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
        ValueError: If it is UTF-16.
    """
    if not fileio.exists(path, backend_args=backend_args):
        raise FileNotFoundError(f'list of images not found: {path}')
    content = fileio.get(path, backend_args=backend_args)
    if b'\0' in content:  # UTF-16, as Windows writes it
        raise ValueError(f'{path}: expected a list in UTF-8, found null bytes as in UTF-16; save it again as UTF-8')
    # Names of files need not be UTF-8: their bytes survive, as in what the file system returns.
    lines = (line.strip('\ufeff \t\r') for line in content.decode('utf-8', 'surrogateescape').split('\n'))
    return [line for line in lines if line]


def first(line: str) -> str:
    """The image of a line, see :func:`split_pair`."""
    return split_pair(line)[0]


def below(names: Iterable[str], folder: str) -> List[str]:
    """Names of a list as paths below the folder of its images: what every reader of lists makes of them.

    ``day\\a.jpg`` is ``day/a.jpg``. A path of the whole file system becomes relative if it leads into the folder; it
    stays if it leads to another file; else its first ``/`` means the folder, as some published lists have it.

    Args:
        names (Iterable[str]): As the list writes them, without masks (:func:`split_pair`).
        folder (str): The images'; '' is the current one.

    Returns:
        list[str]: Normalized, '/' between folders.
    """
    roots = {osp.join(path(folder), '').replace(os.sep, '/') for path in (osp.abspath, osp.realpath)}
    found = []
    for name in names:
        name = name.replace('\\', '/')
        if osp.isabs(name):
            root = next((root for root in roots if name.startswith(root)), '')
            if root:
                name = name[len(root):]
            elif not osp.isfile(name):
                name = name.lstrip('/')
        # Most names are normal: asking is faster than making them so.
        found.append(osp.normpath(name).replace(os.sep, '/') if './' in name or '//' in name else name)
    return found


def files_beside(names: Iterable[str], folder: str) -> List[str]:
    """All files of those folders that some names lie in: one look into each, where asking for a million files is slow.

    Args:
        names (Iterable[str]): Relative to ``folder``.
        folder (str): Where they begin.

    Returns:
        list[str]: Names like those given, also of what is no image; nothing of folders that cannot be read.
    """
    found: List[str] = []
    for inner in sorted({name.rpartition('/')[0] for name in names}):
        try:
            inside = sorted(os.listdir(osp.join(folder, inner) or os.curdir))
        except OSError:
            continue
        found += [f'{inner}/{name}' for name in inside] if inner else inside
    return found


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
