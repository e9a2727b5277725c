from PIL import Image

from .camvid import CamVidDataset
from .class_index import ClassIndex, image_ids
from .coco import COCO81Dataset
from .collate import semi_collate
from .folder import FolderDataset
from .guide import GuidedPairDataset, draw_guide
from .load_bands import LoadBands
from .online_guided import OnlineGuidedDataset
from .pseudo_labeled import PseudoLabeledDataset
from .replay import ReplaySampler
from .sampler import LabeledUnlabeledSampler
from .self_training import SelfTrainingDataset, lists_nothing
from .shapes import ShapesDataset
from .transforms import CheckSegMap, RandomScale, StrongAugment
from .unlabeled import SemiDataset, UnlabeledDataset

Image.MAX_IMAGE_PIXELS = None  # the user's own pictures, satellite scenes among them, are no bombs

__all__ = [
    'COCO81Dataset', 'CamVidDataset', 'CheckSegMap', 'ClassIndex', 'FolderDataset', 'GuidedPairDataset',
    'LabeledUnlabeledSampler', 'LoadBands', 'OnlineGuidedDataset', 'PseudoLabeledDataset', 'RandomScale',
    'ReplaySampler', 'SelfTrainingDataset', 'SemiDataset', 'ShapesDataset', 'StrongAugment', 'UnlabeledDataset',
    'draw_guide', 'image_ids', 'lists_nothing', 'semi_collate'
]
