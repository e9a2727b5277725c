"""Losses; the divisor of each is named in its docstring."""
from .collaborative import (
    ImageWeightedCrossEntropy,
    attainable_similarity,
    collaborate,
    cosine_map,
    image_weights,
    nearest_grid,
    representation_prediction,
    softmax_similarity,
    update_prototypes,
)
from .head_loss import head_loss
from .ohem import OHEMCrossEntropyLoss, ohem_mask
from .pixel_loss import PseudoLabelCrossEntropy, PseudoLabelKLDivergence, weighted_pixel_loss
from .prototype_contrast import prototype_info_nce
from .valid_cross_entropy import ValidCrossEntropyLoss, pixel_cross_entropy

__all__ = [
    'ImageWeightedCrossEntropy', 'OHEMCrossEntropyLoss', 'PseudoLabelCrossEntropy', 'PseudoLabelKLDivergence',
    'ValidCrossEntropyLoss', 'attainable_similarity', 'collaborate', 'cosine_map', 'head_loss', 'image_weights',
    'nearest_grid', 'ohem_mask', 'pixel_cross_entropy', 'prototype_info_nce', 'representation_prediction',
    'softmax_similarity', 'update_prototypes', 'weighted_pixel_loss'
]
