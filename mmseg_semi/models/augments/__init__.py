"""Batch augments: changes of a whole batch of views, on the device."""
from .base import BatchAugment
from .classmix import ClassMix
from .cutmix import CutMix, cutmix_box
from .cutout import Cutout
from .geometry import RandomMirror, RandomScaleCrop
from .patch_mask import PatchMask
from .photometric import ColorJitter, GaussianBlur, RandomGrayscale

__all__ = ['BatchAugment', 'ClassMix', 'ColorJitter', 'CutMix', 'Cutout', 'GaussianBlur', 'PatchMask',
           'RandomGrayscale', 'RandomMirror', 'RandomScaleCrop', 'cutmix_box']
