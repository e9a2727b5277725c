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
from .cross_image import (
    anchor_scores,
    consistency_loss,
    cosine_similarity_map,
    image_score,
    masked_average_pool,
    rectified_cross_entropy,
    rectify_weight,
)
from .head_loss import head_loss
from .ohem import OHEMCrossEntropyLoss, ohem_mask
from .pixel_loss import PseudoLabelCrossEntropy, PseudoLabelKLDivergence, weighted_pixel_loss
from .prototype_contrast import prototype_info_nce
from .valid_cross_entropy import ValidCrossEntropyLoss, pixel_cross_entropy

__all__ = [
    'ImageWeightedCrossEntropy', 'OHEMCrossEntropyLoss', 'PseudoLabelCrossEntropy', 'PseudoLabelKLDivergence',
    'ValidCrossEntropyLoss', 'anchor_scores', 'attainable_similarity', 'collaborate', 'consistency_loss', 'cosine_map',
    'cosine_similarity_map', 'head_loss', 'image_score', 'image_weights', 'masked_average_pool', 'nearest_grid',
    'ohem_mask', 'pixel_cross_entropy', 'prototype_info_nce', 'rectified_cross_entropy', 'rectify_weight',
    'representation_prediction', 'softmax_similarity', 'update_prototypes', 'weighted_pixel_loss'
]
