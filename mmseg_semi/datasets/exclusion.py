"""Which files of an unlabeled pool belong to other sets."""
import hashlib
import os
import os.path as osp
import sys
from typing import Callable, Dict, Iterator, List, Sequence, Set, Tuple

import mmengine
import numpy as np
from mmengine.dataset import BaseDataset

from mmseg_semi.registry import DATASETS

from .image_lists import IMG_SUFFIXES, strip_suffix
from .partition import same_images

_HEAD = 1 << 16  # bytes read before a file is read whole


def build_sets(cfgs: Sequence[dict]) -> Iterator[BaseDataset]:
    """Builds the plain datasets that configs describe, those inside wrappers too, without their pipelines."""
    for cfg in cfgs:
        if not isinstance(cfg, dict):
            raise TypeError(f'exclude_sets must hold configs of datasets, got {cfg!r}')
        parts = cfg.get('datasets') or [cfg[key] for key in ('labeled', 'dataset') if key in cfg]
        if parts:
            yield from build_sets(parts)
        else:
            try:
                dataset = DATASETS.build({**cfg, 'pipeline': []})
            except ValueError as error:
                raise ValueError(f"exclude_sets, {cfg.get('data_prefix') or cfg.get('ann_file')}: {error}") from error
            yield dataset


class RealPaths:
    """``osp.realpath`` with one look into each folder: a million files are too many to ask one by one."""

    def __init__(self) -> None:
        self._folders: Dict[str, Tuple[str, Set[str]]] = {}

    def __call__(self, path: str) -> str:
        """The path, absolute and without links."""
        folder, name = osp.split(path)
        if folder not in self._folders:
            self._folders[folder] = osp.realpath(folder), _links(folder)
        real, links = self._folders[folder]
        return osp.realpath(path) if name in links else osp.join(real, name)


class ExcludeList:
    """The images of a list, to be kept out of a pool.

    A line is the path of an image from its folder or, of several folders, from their common parent, or a bare name,
    which matches in every folder. Lists of other forms are compared as :func:`same_images` does.

    Args:
        path (str): Of the list, for messages.
        names (Sequence[str]): Its images, as :func:`below` returns them.
    """

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self.path, self.names, self.found = path, names, 0

    def find(self, keys: Sequence[str], inner: str, key_of: Callable[[str], str]) -> Set[str]:
        """Which images of a folder the list names.

        Args:
            keys (Sequence[str]): The images, below the folder and without suffixes.
            inner (str): The folder, below the parent of all.
            key_of (Callable): Makes such a key of a name.

        Returns:
            set[str]: Of ``keys``.
        """
        known, start = set(keys), '' if inner == os.curdir else f'{inner}/'.replace(os.sep, '/')
        ids = {name if name in known else key_of(name) for name in self.names}
        out = {key for key in known if key in ids or key.rpartition('/')[2] in ids}
        out.update(own[len(start):] for own, _ in same_images((start + key for key in known), ids))
        self.found += len(out)
        return out

    def check(self, where: str, names: Sequence[str]) -> None:
        """To be called last.

        Raises:
            ValueError: If the list named no image, as one of another data set or of another form does.
        """
        if self.names and not self.found:
            raise ValueError(f'the exclude list {self.path} leaves out no image {where}: its {len(self.names)} lines '
                             f"such as '{self.names[0]}' name none of these, such as '{names[0]}'; expected paths "
                             'below the folder, or leave the list out')


class Exclusion:
    """The images and masks of other sets, as files to be kept out of a pool.

    A file of the pool is out if it is an image of a set under any path (links are resolved; another suffix beside it
    does not save it), one of its masks, any file below its folder of masks, or, with ``by='content'``, a file with the
    bytes of one of its images. Only files of the same size are read for that.

    Args:
        cfgs (Sequence[dict]): Dataset configs, such as the labeled and the validation set's.
        by (str): ``'path'`` or ``'content'``, which implies the path.

    Raises:
        TypeError: If a config is no dict.
        ValueError: If ``by`` is unknown.
    """

    def __init__(self, cfgs: Sequence[dict], by: str = 'path') -> None:
        if by not in ('path', 'content'):
            raise ValueError(f"exclude_by must be 'path' or 'content', got {by!r}")
        self._real = RealPaths()
        self._images: List[str] = []
        self._masks: Set[str] = set()
        self.mask_folders: Set[str] = set()
        for dataset in build_sets(cfgs):
            for i in range(len(dataset)):
                info = dataset.get_data_info(i)
                self._images.append(info['img_path'])
                if info.get('seg_map_path'):
                    self._masks.add(self._real(info['seg_map_path']))
            images, masks = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
            if images and masks and not _inside(osp.realpath(images), osp.realpath(masks)):
                self.mask_folders.add(osp.realpath(masks))
        self._mask_folders = tuple(osp.join(folder, '') for folder in self.mask_folders)
        self._stems = {self._stem(path) for path in self._images}
        self._contents = _Contents(self._images) if by == 'content' else None

    def keep(self, paths: Sequence[str]) -> np.ndarray:
        """Which paths are in none of the sets, bool [len(paths)].

        Raises:
            ValueError: If a file cannot be read for the comparison of contents; names it.
        """
        kept = np.fromiter((self._is_foreign(path) for path in paths), dtype=bool, count=len(paths))
        if self._contents:
            left = np.flatnonzero(kept)
            kept[left] = ~self._contents.contains([paths[i] for i in left])
        return kept

    def _is_foreign(self, path: str) -> bool:
        real = self._real(path)
        return not (strip_suffix(real, IMG_SUFFIXES) in self._stems or real in self._masks
                    or (self._mask_folders and real.startswith(self._mask_folders)))

    def _stem(self, path: str) -> str:
        return strip_suffix(self._real(path), IMG_SUFFIXES)


def _links(folder: str) -> Set[str]:
    """Names of the links in a folder."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # a list may name what is not there; whoever opens it will say so
        return set()


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(osp.join(folder, ''))


class _Contents:
    """Contents of some files; digests are taken when a file of the same size comes along."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._by_size: Dict[int, List[str]] = {}
        for path in paths:
            self._by_size.setdefault(_size(path), []).append(path)
        self._digests: Dict[Tuple[int, int], Set[bytes]] = {}

    def contains(self, paths: Sequence[str]) -> np.ndarray:
        """Which files have the bytes of one of ours, bool [len(paths)]."""
        found = np.zeros(len(paths), dtype=bool)
        candidates = [(i, size) for i, size in enumerate(map(_size, paths)) if size in self._by_size]
        # Pictures without compression all have one size: then it takes long enough for a bar.
        if len(candidates) > 1000:
            candidates = mmengine.track_iter_progress(candidates, file=sys.stderr)
        for i, size in candidates:
            limits = (_HEAD, ) if size <= _HEAD else (_HEAD, size)
            found[i] = all(_digest(paths[i], limit) in self._known(size, limit) for limit in limits)
        return found

    def _known(self, size: int, limit: int) -> Set[bytes]:
        if (size, limit) not in self._digests:
            self._digests[size, limit] = {_digest(path, limit) for path in self._by_size[size]}
        return self._digests[size, limit]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise ValueError(f"exclude_by='content' cannot read {path}: {error.strerror}") from error


def _digest(path: str, limit: int) -> bytes:
    """Digest of the first ``limit`` bytes."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, 'rb') as file:
            while limit > 0 and (part := file.read(min(limit, 1 << 20))):
                digest.update(part)
                limit -= len(part)
    except OSError as error:
        raise ValueError(f"exclude_by='content' cannot read {path}: {error.strerror}") from error
    return digest.digest()
