"""Guides for unlabeled images whose classes are only known from the last prediction."""
from typing import Union

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from mmseg_semi.registry import DATASETS

from .class_index import ClassIndex
from .guide import GuidedPairDataset


@DATASETS.register_module()
class OnlineGuidedDataset(GuidedPairDataset):
    """Adds a guide to every image of an unlabeled set, for CISC-R in a single run (section 10.4).

    A guide must be drawn before the pseudo-label of this step exists. So :attr:`table` remembers the classes that were
    last predicted for each image: one of them is drawn, uniformly among those that a labeled image shows, then one of
    its images. An image without a prediction takes part with every class. ``GuideTableHook`` keeps the table.

    Samples are as those of :class:`GuidedPairDataset`, without a pseudo-label, with ``has_guide`` false (the step finds
    the shared class) and with ``table_row`` (int) in the meta information.

    Args:
        primary (dict or BaseSegDataset): The unlabeled set. Masks are not read.
        labeled (dict or BaseSegDataset): See :class:`GuidedPairDataset`.
        index (ClassIndex, str or dict): See :class:`GuidedPairDataset`.
        max_crop_tries (int): See :class:`GuidedPairDataset`.
        lazy_init (bool): Whether to read lists and index later. Defaults to False.

    Attributes:
        table (Tensor): [N_u, C] uint8 in shared memory, 1 for the classes last predicted; workers see every change.

    Raises:
        ValueError: See :class:`GuidedPairDataset`.
    """

    def __init__(self,
                 primary: Union[dict, BaseDataset],
                 labeled: Union[dict, BaseDataset],
                 index: Union[ClassIndex, str, dict],
                 max_crop_tries: int = 10,
                 lazy_init: bool = False) -> None:
        super().__init__(primary, labeled, index, sampling='class_uniform', max_crop_tries=max_crop_tries,
                         lazy_init=lazy_init)

    def full_init(self) -> None:
        """As :class:`GuidedPairDataset`; makes the table, all zeros."""
        if self._ready:
            return
        super().full_init()
        self.table = torch.zeros(len(self.primary), len(self.index.classes), dtype=torch.uint8).share_memory_()

    def __getitem__(self, idx: int) -> dict:
        """The unlabeled sample ``idx`` with a guide for the classes in its row.

        Raises:
            ValueError: If the guide cannot be made; names files.
        """
        self.full_init()
        sample = self.primary[idx]
        classes = np.flatnonzero(self.table[idx].numpy())
        queried = [c for c in range(len(self.index.classes)) if c not in self.index.exclude]
        guide = self.load_guide([int(c) for c in classes if c in queried] or queried)
        guide.set_metainfo(dict(guide_class=-1, has_guide=False))
        sample['data_samples'].guide = guide
        sample['data_samples'].set_metainfo(dict(table_row=idx))
        return sample
