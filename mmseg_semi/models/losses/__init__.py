"""Losses; the divisor of each is named in its docstring."""
from .ohem import OHEMCrossEntropyLoss, ohem_mask
from .pixel_loss import PseudoLabelCrossEntropy, weighted_pixel_loss
from .valid_cross_entropy import ValidCrossEntropyLoss, pixel_cross_entropy

__all__ = [
    'OHEMCrossEntropyLoss', 'PseudoLabelCrossEntropy', 'ValidCrossEntropyLoss', 'ohem_mask', 'pixel_cross_entropy',
    'weighted_pixel_loss'
]
