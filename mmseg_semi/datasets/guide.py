"""Pairs an image with a labeled one that shares a class, for CISC-R."""
import logging
import os.path as osp
from typing import Optional, Sequence, Union

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.datasets.transforms import RandomCrop
from mmseg.structures import SegDataSample

from mmseg_semi.registry import DATASETS

from .class_index import ClassIndex, class_fractions, image_ids
from .unlabeled import SemiDataset

SAMPLINGS = ('multiset', 'unique', 'class_uniform')


def draw_guide(index: ClassIndex,
               classes: Sequence[int],
               rng,
               sampling: str = 'multiset',
               exclude_id: Optional[str] = None) -> str:
    """Draws a labeled image that shows one of some classes.

    Classes that the index excludes or that no labeled image shows are passed over; if none is left, any labeled image
    is drawn, uniformly.

    Args:
        index (ClassIndex): The labeled images per class.
        classes (Sequence[int]): Classes of the primary image, distinct.
        rng: ``numpy.random.Generator``, ``RandomState`` or the module ``numpy.random``.
        sampling (str): ``'multiset'``, uniform over the concatenated lists, so an image that shares k classes is k
            times as likely (released code); ``'unique'``, uniform over their union; ``'class_uniform'``, a class with
            candidates first, then an image of it, which balances rare classes.
        exclude_id (str, optional): The primary image itself; drawn only if there is no other candidate.

    Returns:
        str: An id of ``index.ids``.

    Raises:
        ValueError: If ``sampling`` is unknown.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f'sampling must be one of {SAMPLINGS}, got {sampling!r}')
    queried = [c for c in classes if 0 <= c < len(index.lists) and c not in index.exclude]
    lists = [index.lists[c] for c in queried if index.lists[c]] or [index.ids]
    others = [[i for i in members if i != exclude_id] for members in lists] if exclude_id is not None else lists
    lists = [members for members in others if members] or lists
    if sampling == 'class_uniform':
        lists = [lists[rng.choice(len(lists))]]
    pool = [i for members in lists for i in members]
    if sampling == 'unique':
        pool = sorted(set(pool))
    return pool[rng.choice(len(pool))]


@DATASETS.register_module()
class GuidedPairDataset(BaseDataset):
    """Adds a guide to every sample of a primary dataset: a labeled image that shares a class with it.

    One sample (section 3 of CISC-R, https://doi.org/10.1109/TPAMI.2022.3233584):

    1. the primary dataset makes its sample; K1 are the classes that cover at least ``index.min_area`` of the crop,
       padding included in the whole, without the ignored label and ``index.exclude``;
    2. :func:`draw_guide` draws a labeled image for K1, not the primary image itself if there is another;
    3. the labeled pipeline runs up to its ``RandomCrop``; K2 are the classes of the result;
    4. if K1 and K2 share classes, up to ``max_crop_tries`` random crops are drawn until one holds a pixel of them, then
       one crop is centered on such a pixel; otherwise there is one random crop. The rest of the pipeline follows;
    5. the guiding class is drawn uniformly from K1 and the classes of at least ``index.min_area`` in the guide crop.

    All draws come from numpy's global generator, as mmcv's transforms do it: mmengine seeds it per worker.

    The sample keeps the form of the primary one, ``inputs`` and ``data_samples``, so every collate function carries it:

    - ``data_samples.guide`` (``SegDataSample``): ``inputs``, the guide crop, uint8 [3, h, w], ``gt_sem_seg``, its mask,
      int64 [1, h, w], and in the meta information ``guide_class`` (int, -1 if none), ``has_guide`` (bool) and
      ``guide_id`` (str);
    - ``data_samples.pseudo_sem_seg`` (``PixelData``, int64 [1, h, w]) instead of ``gt_sem_seg``, unless the primary
      image is one of the labeled ones: its mask is a pseudo-label then, and :func:`semi_collate` counts the sample as
      unlabeled. mmseg's preprocessors pad ``gt_sem_seg`` only.

    Without a shared class the guide is still there, and ``has_guide`` is false.

    Args:
        primary (dict or BaseSegDataset): Any dataset of packed samples with a mask: labeled images, or unlabeled ones
            with pseudo-labels as masks. Pseudo-labels hold final labels: no ``label_map``, no ``reduce_zero_label``.
        labeled (dict or BaseSegDataset): The labeled set. Its pipeline makes the guides and must hold one
            ``RandomCrop``, whose size is that of the primary crops too, and end in ``PackSegInputs``.
        index (ClassIndex, str or dict): The index of this labeled set, its file, or the arguments of
            :meth:`ClassIndex.build`, by which it is built here from all masks.
        sampling (str): See :func:`draw_guide`. Defaults to 'multiset'.
        max_crop_tries (int): Random crops before the centered one, positive. Defaults to 10.
        lazy_init (bool): Whether to read lists and index later. Defaults to False.

    Raises:
        FileNotFoundError: If the index file does not exist.
        TypeError: If ``labeled`` is not one plain dataset.
        ValueError: If a set is empty, the index is of another labeled set, an image is labeled and in the primary set
            with another mask, the labeled pipeline does not fit, or an argument is out of range.
    """

    def __init__(self,
                 primary: Union[dict, BaseDataset],
                 labeled: Union[dict, BaseDataset],
                 index: Union[ClassIndex, str, dict],
                 sampling: str = 'multiset',
                 max_crop_tries: int = 10,
                 lazy_init: bool = False) -> None:
        if sampling not in SAMPLINGS:
            raise ValueError(f'sampling must be one of {SAMPLINGS}, got {sampling!r}')
        if max_crop_tries < 1:
            raise ValueError(f'max_crop_tries must be positive, got {max_crop_tries}')
        # A BaseDataset by type only, since mmengine's ConcatDataset takes nothing else: all it keeps is forwarded.
        super().__init__(lazy_init=True)
        self.primary = SemiDataset._build('primary', primary)
        self.labeled = SemiDataset._build('labeled', labeled)
        self.index = index
        self.sampling = sampling
        self.max_crop_tries = max_crop_tries
        self._ready = False

        transforms = getattr(getattr(self.labeled, 'pipeline', None), 'transforms', None)
        if transforms is None:
            raise TypeError(f'labeled must be one dataset with a pipeline, got {type(self.labeled).__name__}')
        crops = [i for i, t in enumerate(transforms) if isinstance(t, RandomCrop)]
        if len(crops) != 1:
            raise ValueError(f'the labeled pipeline must have one RandomCrop, found {len(crops)}')
        self._before = Compose(transforms[:crops[0]])
        self._crop = transforms[crops[0]]
        self._after = Compose(transforms[crops[0] + 1:])
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Meta information of the primary dataset."""
        return self.primary.metainfo

    def full_init(self) -> None:
        """Reads the lists and the index, and checks that they belong together."""
        if self._ready:
            return
        self.primary.full_init()
        self.labeled.full_init()
        if not len(self.primary):
            raise ValueError('the primary set is empty')
        ids = image_ids(self.labeled)
        if isinstance(self.index, ClassIndex):
            self.index.check(ids)
        elif isinstance(self.index, dict):
            self.index = ClassIndex.build(self.labeled, **self.index)
        else:
            self.index = ClassIndex.load(self.index, ids)
        for name, dataset in (('primary', self.primary), ('labeled', self.labeled)):
            classes = dataset.metainfo.get('classes')
            if classes is not None and tuple(classes) != self.index.classes:
                raise ValueError(f'the {name} set has classes {tuple(classes)}, the class index {self.index.classes}')
        self._positions = {name: i for i, name in enumerate(ids)}
        self._own_ids = {self._file(self.labeled.get_data_info(i)): name for i, name in enumerate(ids)}
        self._refuse_overlap()
        queried = [c for c in range(len(self.index.classes)) if c not in self.index.exclude]
        bare = [self.index.classes[c] for c in queried if not self.index.lists[c]]
        if bare:
            print_log(f'no labeled image shows at least {self.index.min_area:.2%} of {", ".join(bare)}; no guide is '
                      'drawn for these classes', logger='current', level=logging.WARNING)
        self._ready = True

    @staticmethod
    def _file(info: dict, key: str = 'img_path') -> Optional[str]:
        path = info.get(key)
        return path and osp.realpath(path)

    def _refuse_overlap(self) -> None:
        """An image may be in both sets with its ground truth, but not with a pseudo-label."""
        for i in range(len(self.primary)):
            info = self.primary.get_data_info(i)
            name = self._own_ids.get(self._file(info))
            if name is None:
                continue
            known = self.labeled.get_data_info(self._positions[name])
            if self._file(info, 'seg_map_path') != self._file(known, 'seg_map_path'):
                raise ValueError(
                    f"image {info['img_path']} is labeled, with mask {known.get('seg_map_path')}, and in the primary "
                    f"set with mask {info.get('seg_map_path')}; take labeled images out of the list of unlabeled ones")

    def __len__(self) -> int:
        """Images of the primary dataset."""
        return len(self.primary)

    def get_data_info(self, idx: int) -> dict:
        """``img_path`` and the like of primary image ``idx``."""
        return self.primary.get_data_info(idx)

    def get_subset(self, indices) -> None:
        """Not supported: set ``indices`` of the primary dataset."""
        raise NotImplementedError('GuidedPairDataset has no subsets: set indices of its primary dataset')

    get_subset_ = get_subset

    def _classes(self, mask: np.ndarray, num_pixels: int) -> np.ndarray:
        """Sorted classes of enough area in a mask, int64; the excluded ones are left out."""
        fractions = class_fractions(mask, len(self.index.classes), num_pixels)
        fractions[list(self.index.exclude)] = 0
        return np.flatnonzero(fractions >= self.index.min_area)

    def __getitem__(self, idx: int) -> dict:
        """The primary sample ``idx`` with its guide.

        Raises:
            ValueError: If the sample has no mask or is larger than the crop, or the guide cannot be made; names files.
        """
        self.full_init()
        sample = self.primary[idx]
        data_sample = sample['data_samples']
        path = data_sample.metainfo.get('img_path') or self.get_data_info(idx)['img_path']
        if 'gt_sem_seg' not in data_sample:
            raise ValueError(f'image {path} came without a mask: the primary pipeline needs LoadAnnotations')
        mask = data_sample.gt_sem_seg.data[0].numpy()
        height, width = self._crop.crop_size
        if mask.shape[0] > height or mask.shape[1] > width:
            raise ValueError(f'image {path} came as {mask.shape}, larger than the crop {(height, width)} of the '
                             'labeled pipeline; crop both alike')
        own_id = self._own_ids.get(osp.realpath(path))
        classes = self._classes(mask, height * width)
        guide = self.load_guide(classes, own_id)
        shared = np.intersect1d(classes, self._classes(guide.gt_sem_seg.data[0].numpy(), height * width))
        guide_class = int(np.random.choice(shared)) if len(shared) else -1
        guide.set_metainfo(dict(guide_class=guide_class, has_guide=guide_class >= 0))
        if own_id is None:
            data_sample.pseudo_sem_seg = PixelData(data=data_sample.gt_sem_seg.data)
            del data_sample.gt_sem_seg
        data_sample.guide = guide
        return sample

    def load_guide(self, classes: Sequence[int], exclude_id: Optional[str] = None) -> SegDataSample:
        """Draws, loads and crops a guide for some classes.

        Args:
            classes (Sequence[int]): K1, distinct; may be empty.
            exclude_id (str, optional): Labeled id to avoid.

        Returns:
            SegDataSample: ``inputs`` uint8 [3, h, w], ``gt_sem_seg`` and ``guide_id``; h, w at most the crop size.

        Raises:
            ValueError: If the image or its mask cannot be read; names them.
        """
        self.full_init()
        guide_id = draw_guide(self.index, classes, np.random, self.sampling, exclude_id)
        info = self.labeled.get_data_info(self._positions[guide_id])
        files = f"{info['img_path']} and {info.get('seg_map_path')}"
        try:
            results = self._before(info)
            packed = results and self._after(self._crop_on(results, classes))
        except Exception as error:
            raise ValueError(f'cannot make a guide of {files}: {type(error).__name__}: {error}') from error
        if not packed:
            raise ValueError(f'cannot make a guide of {files}: the labeled pipeline returned nothing')
        guide = packed['data_samples']
        guide.inputs = packed['inputs']
        guide.set_metainfo(dict(guide_id=guide_id))
        return guide

    def _crop_on(self, results: dict, classes: Sequence[int]) -> dict:
        """A crop of the guide that holds a pixel of a shared class, if there is one."""
        mask = results['gt_seg_map']
        wanted = np.isin(mask, np.intersect1d(classes, self._classes(mask, mask.size)))
        if not wanted.any():
            return self._crop(results)
        labels = np.unique(mask[wanted])
        for _ in range(self.max_crop_tries):
            cropped = self._crop(dict(results))  # a crop changes entries, not arrays
            if np.isin(cropped['gt_seg_map'], labels).any():
                return cropped
        places = np.flatnonzero(wanted)
        center = divmod(int(places[np.random.randint(len(places))]), mask.shape[1])
        y, x = (min(max(c - size // 2, 0), max(whole - size, 0))
                for c, size, whole in zip(center, self._crop.crop_size, mask.shape, strict=True))
        height, width = self._crop.crop_size
        for key in ('img', *results['seg_fields']):
            results[key] = results[key][y:y + height, x:x + width]
        results['img_shape'] = results['img'].shape[:2]
        return results
