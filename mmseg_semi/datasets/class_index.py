"""Which labeled images show which class."""
import functools
import hashlib
import json
import math
import os
import os.path as osp
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import mmengine
import numpy as np
from mmcv.transforms import LoadAnnotations
from mmseg.datasets import BaseSegDataset

from mmseg_semi.files import write_text

FORMAT = 'mmseg_semi class index'
VERSION = 1


def image_ids(dataset: BaseSegDataset) -> List[str]:
    """Names the images of a dataset as its list file would: relative to ``img_path``, without the image suffix.

    Sub-folders are kept, with '/', so equal base names in different folders stay apart.

    Returns:
        list[str]: One id per image, in the order of the dataset.

    Raises:
        TypeError: If the dataset has no ``data_prefix``, such as a concatenation.
        ValueError: If an image lies outside ``img_path`` or two images share an id.
    """
    if not hasattr(dataset, 'data_prefix'):
        raise TypeError(f'image ids need one dataset with a data_prefix, got {type(dataset).__name__}')
    folder = dataset.data_prefix.get('img_path') or os.curdir
    suffixes = (dataset.img_suffix, ) if isinstance(dataset.img_suffix, str) else dataset.img_suffix
    suffixes = sorted(suffixes, key=len, reverse=True)
    ids, paths = [], {}
    for i in range(len(dataset)):
        path = dataset.get_data_info(i)['img_path']
        name = osp.relpath(path, folder).replace(os.sep, '/')
        if name.startswith('../'):
            raise ValueError(f"image {path} is not below img_path '{folder}'; set data_prefix so that it is")
        length = next((len(s) for s in suffixes if s and name.lower().endswith(s.lower())), 0)
        name = name[:-length] if length else osp.splitext(name)[0]
        if paths.setdefault(name, path) != path:
            raise ValueError(f"images {paths[name]} and {path} share the id '{name}'")
        ids.append(name)
    return ids


def class_fractions(mask: np.ndarray, num_classes: int, num_pixels: int) -> np.ndarray:
    """Share of an image that each class covers.

    Args:
        mask (np.ndarray): [h, w] integers, labels in 0..255; those from ``num_classes`` on are not counted.
        num_classes (int): ``C``.
        num_pixels (int): The whole, ignored pixels and padding included.

    Returns:
        np.ndarray: [C] float64 in [0, 1].
    """
    # A quotient is exact where threshold * pixels is not: 7 of 100 pixels are 0.07, but 0.07 * 100 > 7.
    return np.bincount(mask.ravel(), minlength=num_classes)[:num_classes] / num_pixels


def _mask_fractions(info: dict, load: LoadAnnotations, num_classes: int, ignore_index: int) -> np.ndarray:
    path = info['seg_map_path']
    try:
        mask = load(info)['gt_seg_map']
    except Exception as error:
        if path in str(error):
            raise
        raise ValueError(f'cannot read mask {path}: {type(error).__name__}: {error}') from error
    if mask.ndim != 2:
        raise ValueError(f'mask {path} has shape {mask.shape}; expected class indices, a PNG of mode P or L')
    present = np.flatnonzero(np.bincount(mask.ravel()))
    wrong = present[(present >= num_classes) & (present != ignore_index)]
    if len(wrong):
        raise ValueError(f'mask {path} holds labels {wrong.tolist()}; expected 0..{num_classes - 1} or '
                         f'{ignore_index} (ignore)')
    return class_fractions(mask, num_classes, mask.size)


class ClassIndex:
    """Class -> labeled images that show it, of one labeled split.

    An image enters the list of class ``c`` if at least ``min_area`` of all its pixels have that label, at native size,
    ignored pixels included in the whole. Every class has a list; those in ``exclude`` have one as well (the scores
    of section 6 of CISC-R read it), but no guide is drawn for them. See https://doi.org/10.1109/TPAMI.2022.3233584.

    The index carries all labeled ids and their digest, so that it cannot be used with another split, where it would
    turn the masks of unlabeled images into guides.

    Args:
        ids (Sequence[str]): Ids of all labeled images, see :func:`image_ids`.
        areas (Sequence[Mapping[str, float]]): For each class, id -> share of the image, in (0, 1].
        classes (Sequence[str]): Names of the ``C`` classes.
        min_area (float): In (0, 1].
        exclude (Sequence[int]): Classes never queried: (0, ) for VOC and COCO, () for Cityscapes.

    Attributes:
        ids (tuple[str]): Sorted, unique.
        areas (tuple[dict[str, float]]): Per class, sorted by id.
        lists (tuple[tuple[str]]): Per class, the sorted ids.
        digest (str): SHA-256 of ``ids``, hexadecimal.

    Raises:
        ValueError: If there is no labeled image, a list holds an id that is not labeled, or an argument is out of
            range.
    """

    def __init__(self,
                 ids: Sequence[str],
                 areas: Sequence[Mapping[str, float]],
                 classes: Sequence[str],
                 min_area: float = 0.03,
                 exclude: Sequence[int] = ()) -> None:
        if not 0 < min_area <= 1:
            raise ValueError(f'min_area must be in (0, 1], got {min_area}')
        if len(areas) != len(classes):
            raise ValueError(f'{len(areas)} lists for {len(classes)} classes')
        if any(type(c) is not int or not 0 <= c < len(classes) for c in exclude):
            raise ValueError(f'exclude must hold classes in 0..{len(classes) - 1}, got {tuple(exclude)}')
        self.ids: Tuple[str, ...] = tuple(sorted(set(ids)))
        if not self.ids:
            raise ValueError('a class index needs labeled images, the list is empty')
        self.areas: Tuple[Dict[str, float], ...] = tuple({i: float(a[i]) for i in sorted(a)} for a in areas)
        self.lists: Tuple[Tuple[str, ...], ...] = tuple(tuple(a) for a in self.areas)
        self.classes = tuple(classes)
        self.min_area = min_area
        self.exclude = tuple(sorted(exclude))
        self.digest = self._digest(self.ids)

        labeled = set(self.ids)
        for name, members in zip(self.classes, self.lists, strict=True):
            strangers = [i for i in members if i not in labeled]
            if strangers:
                raise ValueError(f"the list of class '{name}' holds {len(strangers)} ids that are not labeled, "
                                 f'such as {strangers[:3]}')

    @staticmethod
    def _digest(ids: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    @classmethod
    def build(cls,
              dataset: BaseSegDataset,
              min_area: float = 0.03,
              exclude: Sequence[int] = (),
              processes: int = 1) -> 'ClassIndex':
        """Reads every mask of a labeled dataset once, with a progress bar (rate, time left).

        Masks are loaded by the ``LoadAnnotations`` of the dataset's own pipeline, hence with its ``label_map`` and
        ``reduce_zero_label``; images are not opened.

        Args:
            dataset (BaseSegDataset): Labeled images; its meta information names the classes.
            min_area (float): See the class. Defaults to 0.03.
            exclude (Sequence[int]): See the class. Defaults to ().
            processes (int): More than one reads in parallel. Defaults to 1.

        Raises:
            TypeError: If it is no single dataset, such as a concatenation.
            ValueError: If the dataset has no classes or no ``LoadAnnotations``, or a mask cannot be read, is not 2-D or
                holds an unknown label; names the mask.
        """
        # A list may name an image twice, the index does not.
        positions = {name: i for i, name in enumerate(image_ids(dataset))}
        where = f'labeled dataset {dataset.data_prefix}'
        classes = dataset.metainfo.get('classes')
        if not classes:
            raise ValueError(f'{where} has no classes: set metainfo=dict(classes=...)')
        loaders = [t for t in dataset.pipeline.transforms if isinstance(t, LoadAnnotations)]
        if len(loaders) != 1:
            raise ValueError(f'{where} must have one LoadAnnotations in its pipeline, found {len(loaders)}')
        ids = list(positions)
        read = functools.partial(
            _mask_fractions, load=loaders[0], num_classes=len(classes), ignore_index=dataset.ignore_index)
        infos = [dataset.get_data_info(positions[i]) for i in ids]
        if processes > 1:
            rows = mmengine.track_parallel_progress(read, infos, processes, chunksize=8, file=sys.stderr)
        else:
            rows = mmengine.track_progress(read, infos, file=sys.stderr)
        found = list(zip(ids, rows, strict=True))
        areas = [{i: row[c] for i, row in found if row[c] >= min_area} for c in range(len(classes))]
        return cls(ids, areas, classes, min_area, exclude)

    def save(self, path: str) -> None:
        """Writes the index as JSON. The file appears under its name only when it is complete."""
        content = dict(format=FORMAT, version=VERSION, min_area=self.min_area, exclude=self.exclude,
                       classes=self.classes, sha256=self.digest, labeled=self.ids, areas=self.areas)
        write_text(Path(path), json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: str, labeled_ids: Sequence[str]) -> 'ClassIndex':
        """Reads an index for a labeled split.

        Args:
            path (str): File of :meth:`save`.
            labeled_ids (Sequence[str]): :func:`image_ids` of the split in use.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no index of this version, contradicts itself or is of another split.
        """
        if not osp.isfile(path):
            raise FileNotFoundError(f'class index not found: {path}; make it with ClassIndex.build(...).save(...)')
        try:
            with open(path) as file:
                content = json.load(file)
            found = content['format'], content['version']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path} is no class index: {type(error).__name__}: {error}') from error
        if found != (FORMAT, VERSION):
            raise ValueError(f'{path} is {found[0]!r} version {found[1]!r}; expected {FORMAT!r} version {VERSION}')
        try:
            index = cls(content['labeled'], content['areas'], content['classes'], content['min_area'],
                        content['exclude'])
            stated = content['sha256']
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{path}: {type(error).__name__}: {error}') from error
        if stated != index.digest:
            raise ValueError(f'{path} was edited: it states sha256 {stated}, its labeled ids have {index.digest}')
        index.check(labeled_ids, path)
        return index

    def check(self, labeled_ids: Sequence[str], name: str = 'the class index') -> None:
        """Refuses another labeled split.

        Raises:
            ValueError: If ``labeled_ids`` are not the ids of this index; names both digests and some ids.
        """
        ids = sorted(set(labeled_ids))
        digest = self._digest(ids)
        if digest != self.digest:
            foreign, missing = sorted(set(self.ids) - set(ids)), sorted(set(ids) - set(self.ids))
            raise ValueError(
                f'{name} is of another labeled split: sha256 {self.digest} ({len(self.ids)} ids), the labeled set in '
                f'use has {digest} ({len(ids)} ids). {len(foreign)} ids only in the index {foreign[:3]}, '
                f'{len(missing)} only in the labeled set {missing[:3]}')

    def restrict(self, rankings: Mapping[int, Sequence[str]], ratio: float = 0.5, min_keep: int = 1) -> 'ClassIndex':
        """Keeps the best guides of each class: the first ``max(min_keep, floor(ratio * n))`` of ``n``.

        Args:
            rankings (Mapping[int, Sequence[str]]): Class -> all ids of its list, best first. A class without a ranking
                keeps its list.
            ratio (float): In (0, 1]. Defaults to 0.5.
            min_keep (int): 1 never empties a list; 0 does as the released code. Defaults to 1.

        Returns:
            ClassIndex: Of the same labeled split.

        Raises:
            ValueError: If a ranking is not its list in another order, or an argument is out of range.
        """
        if not 0 < ratio <= 1 or min_keep < 0:
            raise ValueError(f'ratio must be in (0, 1] and min_keep not negative, got {ratio} and {min_keep}')
        areas = list(self.areas)
        for c, ranking in rankings.items():
            if not 0 <= c < len(self.classes) or sorted(ranking) != list(self.lists[c]):
                raise ValueError(f'the ranking of class {c} must hold the ids of its list once each, in any order; '
                                 f'got {len(ranking)} ids')
            # Rounded first: 0.29 * 100 is 28.999999999999996.
            kept = ranking[:max(min_keep, math.floor(round(ratio * len(ranking), 9)))]
            areas[c] = {i: areas[c][i] for i in kept}
        return ClassIndex(self.ids, areas, self.classes, self.min_area, self.exclude)

    def describe(self) -> str:
        """Coverage per class as a table: images, their share of the labeled set, median area in them."""
        width = max(len(name) for name in self.classes)
        lines = [f'{len(self.ids)} labeled images; classes with at least {self.min_area:.2%} of an image:']
        for c, (name, areas) in enumerate(zip(self.classes, self.areas, strict=True)):
            line = f'{c:3d} {name:{width}s} {len(areas):6d} images {len(areas) / len(self.ids):7.1%}'
            line += f', median area {np.median(list(areas.values())):.1%}' if areas else ', no guide'
            lines.append(line + (', not queried' if c in self.exclude else ''))
        return '\n'.join(lines)
