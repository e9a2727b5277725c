"""Batch augments: changes of a whole batch of views, on the device."""
from .base import BatchAugment
from .classmix import ClassMix
from .cutmix import CutMix, cutmix_box

__all__ = ['BatchAugment', 'ClassMix', 'CutMix', 'cutmix_box']
