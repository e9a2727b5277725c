from .camvid import CamVidDataset
from .class_index import ClassIndex, image_ids
from .collate import semi_collate
from .guide import GuidedPairDataset, draw_guide
from .pseudo_labeled import PseudoLabeledDataset
from .sampler import LabeledUnlabeledSampler
from .self_training import SelfTrainingDataset, lists_nothing
from .shapes import ShapesDataset
from .transforms import CheckSegMap, RandomScale, StrongAugment
from .unlabeled import SemiDataset, UnlabeledDataset

__all__ = [
    'CamVidDataset', 'CheckSegMap', 'ClassIndex', 'GuidedPairDataset', 'LabeledUnlabeledSampler',
    'PseudoLabeledDataset', 'RandomScale', 'SelfTrainingDataset', 'SemiDataset', 'ShapesDataset', 'StrongAugment',
    'UnlabeledDataset', 'draw_guide', 'image_ids', 'lists_nothing', 'semi_collate'
]
