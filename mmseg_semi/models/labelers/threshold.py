"""Pseudo-labels from one prediction, kept where the teacher is sure."""
import torch
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Target


@MODELS.register_module()
class ThresholdLabeler:
    """The label is the most probable class; a pixel trains where its probability reaches a threshold.

    FixMatch's rule, ``1[max_c softmax(z)_c >= tau]``, per pixel.

    Args:
        threshold (float): tau, in [0, 1]. 0 accepts every valid pixel.

    Raises:
        ValueError: If ``threshold`` is outside [0, 1].
    """

    def __init__(self, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f'labeler.threshold must be in [0, 1], found {threshold}')
        self.threshold = threshold

    def __call__(self, logits: Tensor, valid: Tensor) -> Target:
        """Labels a batch.

        Args:
            logits (Tensor): [N, C, H, W] of the teacher at image size; computed in float32.
            valid (Tensor): [N, H, W] bool, false on padding.

        Returns:
            Target: ``weight`` is 1 where the pixel is valid and confident, else 0.
        """
        logits = logits.float()
        top, label = logits.max(dim=1)
        confidence = torch.exp(top - logits.logsumexp(dim=1))  # the largest softmax value, without the softmax
        weight = (valid & (confidence >= self.threshold)).float()
        return Target(label=label, weight=weight, confidence=confidence, valid=valid)
