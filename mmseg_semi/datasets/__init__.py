from .camvid import CamVidDataset
from .collate import semi_collate
from .sampler import LabeledUnlabeledSampler
from .shapes import ShapesDataset
from .transforms import CheckSegMap, RandomScale
from .unlabeled import SemiDataset, UnlabeledDataset

__all__ = [
    'CamVidDataset', 'CheckSegMap', 'LabeledUnlabeledSampler', 'RandomScale', 'SemiDataset', 'ShapesDataset',
    'UnlabeledDataset', 'semi_collate'
]
