"""The training set of a student: labeled images and images with masks that a model made."""
import logging
import math
import os.path as osp
from typing import Union

from mmengine.dataset import ConcatDataset
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS

from .exclusion import RealPaths


def lists_nothing(dataset: dict) -> bool:
    """Whether the list of a dataset config exists and is empty, as the reliable half of a single image."""
    if not dataset.get('ann_file'):
        return False
    path = osp.join(dataset.get('data_root') or '', dataset['ann_file'])
    if not osp.isfile(path):
        return False
    with open(path) as file:
        return not file.read().split()


def refuse_overlap(labeled: BaseSegDataset, pseudo: BaseSegDataset) -> None:
    """Compares the images of two sets by their files.

    Raises:
        ValueError: If they share one; names the first of them.
    """
    real = RealPaths()
    one, other = ({real(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
                  for dataset in (labeled, pseudo))
    if one & other:
        raise ValueError(f'{len(one & other)} images are both labeled and pseudo-labeled, such as '
                         f'{sorted(one & other)[:3]}; take them out of the unlabeled list (exclude=LIST)')


@DATASETS.register_module()
class SelfTrainingDataset(ConcatDataset):
    """The labeled images, repeated ``ceil(U / L)`` times, and the ``U`` pseudo-labeled ones (ST++ spec section 2).

    Shuffled, about half of a batch is labeled: one loss over the mixed batch weighs every pixel alike. If the list of
    pseudo-labeled images is empty, the labeled ones are all, with a warning. Meta information is the labeled set's.

    Args:
        labeled (dict or BaseSegDataset): Images with masks.
        pseudo (dict or BaseSegDataset): Such as a ``PseudoLabeledDataset``.
        lazy_init (bool): Whether to read the lists later. Defaults to False.

    Raises:
        ValueError: If an image is in both sets: it would be trained on with its mask *and* with the model's.
    """

    def __init__(self, labeled: Union[dict, BaseSegDataset], pseudo: Union[dict, BaseSegDataset],
                 lazy_init: bool = False) -> None:
        sources = [DATASETS.build(labeled) if isinstance(labeled, dict) else labeled]
        if isinstance(pseudo, dict) and lists_nothing(pseudo):
            print_log(f'{pseudo["ann_file"]} is empty: training on the labeled images only.', 'current',
                      level=logging.WARNING)
        else:
            sources.append(DATASETS.build(pseudo) if isinstance(pseudo, dict) else pseudo)
            refuse_overlap(*sources)
            times = math.ceil(len(sources[1]) / len(sources[0]))
            sources = [sources[0]] * times + sources[1:]
        super().__init__(sources, lazy_init=lazy_init, ignore_keys=sorted({k for d in sources for k in d.metainfo}))
