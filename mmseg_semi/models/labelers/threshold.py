"""Pseudo-labels from one prediction, kept where the teacher is sure."""
from typing import Callable, Optional

import torch
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import SoftTarget, Target


def require_pixel_reliability(labeler: Callable, method: str, reason: str) -> None:
    """Refuses ``reliability='batch_ratio'``: every pixel has a positive weight then, and the threshold no effect.

    Args:
        labeler (Callable): A labeler, also one that wraps another as its ``labeler``.
        method (str): Name of the method.
        reason (str): What the method does with the weights.

    Raises:
        ValueError: If the labeler, or one it wraps, has ``reliability='batch_ratio'``.
    """
    while labeler is not None:
        if getattr(labeler, 'reliability', 'pixel') == 'batch_ratio':
            raise ValueError(f"{method} does not go with labeler.reliability='batch_ratio': {reason}; expected 'pixel'")
        labeler = getattr(labeler, 'labeler', None)


@MODELS.register_module()
class ThresholdLabeler:
    """The label is the most probable class; a pixel trains where its probability reaches a threshold.

    FixMatch's rule, ``1[max_c softmax(z)_c >= tau]``, per pixel.

    Args:
        threshold (float): tau, in [0, 1]. 0 accepts every valid pixel.
        reliability (str): ``'pixel'``: a pixel weighs 1 where it reaches the threshold, else 0. ``'batch_ratio'``
            (MIC): every valid pixel weighs the share of the batch's valid pixels that reach it; not for methods
            that ask only whether a weight is positive, see :func:`require_pixel_reliability`.
        soft (bool): Whether the target also holds the distribution, for :class:`PseudoLabelKLDivergence`. Costs the
            memory of the logits at image size.

    Raises:
        ValueError: If ``threshold`` is outside [0, 1], or ``reliability`` unknown.
    """

    def __init__(self, threshold: float, reliability: str = 'pixel', soft: bool = False) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f'labeler.threshold must be in [0, 1], found {threshold}')
        if reliability not in ('pixel', 'batch_ratio'):
            raise ValueError(f"labeler.reliability must be 'pixel' or 'batch_ratio', found {reliability!r}")
        self.threshold, self.reliability, self.soft = threshold, reliability, soft

    def __call__(self,
                 logits: Tensor,
                 valid: Tensor,
                 predict: Optional[Callable] = None,
                 iteration: int = 0) -> Target:
        """Labels a batch.

        Args:
            logits (Tensor): [N, C, H, W] of the teacher at image size; computed in float32.
            valid (Tensor): [N, H, W] bool, false on padding.
            predict (Callable, optional): Not used; see :class:`MultiScaleLabeler`.
            iteration (int): Not used either.

        Returns:
            Target: ``weight`` is 1 where the pixel is valid and confident, else 0; with ``'batch_ratio'`` their share
            on every valid pixel. A :class:`SoftTarget` if ``soft``.
        """
        logits = logits.float()
        top, label = logits.max(dim=1)
        confidence = torch.exp(top - logits.logsumexp(dim=1))  # the largest softmax value, without the softmax
        weight = (valid & (confidence >= self.threshold)).float()
        if self.reliability == 'batch_ratio':
            weight = valid * (weight.sum() / valid.sum().clamp(min=1))
        maps = dict(label=label, weight=weight, confidence=confidence, valid=valid)
        return SoftTarget(**maps, probability=logits.softmax(dim=1)) if self.soft else Target(**maps)
