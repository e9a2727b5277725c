from .camvid import CamVidDataset
from .collate import semi_collate
from .sampler import LabeledUnlabeledSampler
from .transforms import CheckSegMap, RandomScale
from .unlabeled import SemiDataset, UnlabeledDataset

__all__ = [
    'CamVidDataset', 'CheckSegMap', 'LabeledUnlabeledSampler', 'RandomScale', 'SemiDataset', 'UnlabeledDataset',
    'semi_collate'
]
