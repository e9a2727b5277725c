"""Masks inside a pool of photographs, by the stamp of convert_masks.py."""
import json
import os.path as osp
from typing import Iterable, Set, Tuple

SETTINGS = '.convert_masks.json'  # in a folder that convert_masks.py wrote; `source` in it is the folder it read


def stamped_folders(names: Iterable[str], root: str, others: Iterable[str]) -> Set[Tuple[str, str]]:
    """Folders that convert_masks.py wrote or read, in a pool or out of it.

    Args:
        names (Iterable[str]): Files of the pool; all folders above them up to ``root`` are looked into, each once.
        root (str): The pool.
        others (Iterable[str]): Folders anywhere that may carry a stamp, such as the masks in use.

    Returns:
        set[tuple[str, str]]: Path without links, '/' at its end, and the ending of the masks in it, '' if all are.
    """
    inner = {''}
    for folder in {osp.dirname(name) for name in names}:
        while folder not in inner:
            inner.add(folder)
            folder = osp.dirname(folder)
    found = set()
    for folder in {*others, *(osp.join(root, name) for name in inner)}:
        try:
            with open(osp.join(folder, SETTINGS), encoding='utf-8') as file:
                settings = json.load(file)
            source, suffix = settings['source'], settings.get('suffix') or ''
        except (OSError, ValueError, KeyError, TypeError):  # none, or no file of convert_masks.py
            continue
        real = osp.realpath(folder)
        found |= {(osp.join(real, ''), ''), (osp.join(osp.realpath(osp.join(real, source)), ''), suffix)}
    return found
