"""Losses of pseudo-labels: a weighted sum over pixels, and what it is divided by."""
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import SoftTarget, Target

from .valid_cross_entropy import check_class_weight, class_weight_tensor, pixel_cross_entropy

NORMS = ('valid', 'kept', 'u2pl')


def weighted_pixel_loss(loss: Tensor, weight: Tensor, valid: Tensor, norm: str = 'valid') -> Tensor:
    """``sum(weight * valid * loss) / D`` over the pixels of this rank.

    With V valid pixels and K kept ones (valid and weight > 0), the divisor D is

    - ``'valid'``: V, so that the loss fades when few pseudo-labels are trusted (FixMatch, UniMatch, AugSeg);
    - ``'kept'``: K, the mean over trusted pixels (for weights of 0 and 1);
    - ``'u2pl'``: K^2 / V, the mean over trusted pixels times V / K (U2PL ``compute_unsupervised_loss``).

    Args:
        loss (Tensor): [N, H, W] float.
        weight (Tensor): [N, H, W] float in [0, 1], 0 for rejected pixels.
        valid (Tensor): [N, H, W] bool, false on padding; or float, how much each pixel counts in both
            sums, 0 on padding.
        norm (str): ``'valid'``, ``'kept'`` or ``'u2pl'``.

    Returns:
        Tensor: Scalar; exactly 0 and connected to the graph when nothing is kept.

    Raises:
        ValueError: If ``norm`` is unknown.
    """
    total = (loss * weight * valid).sum()
    if norm == 'valid':
        return total / _divisor(valid.sum())
    kept = _divisor(((weight > 0) * valid).sum())
    if norm == 'kept':
        return total / kept
    if norm == 'u2pl':
        return total / kept * (valid.sum() / kept)
    raise ValueError(f'norm must be one of {NORMS}, got {norm!r}')


def full_size_logits(logits: Tensor, target: Target, align_corners: bool) -> Tensor:
    """Logits [N, C, h, w] at the size of a target's maps, [N, C, H, W], at least float32."""
    # In float32 before the resize: its rounding in half precision would reach the loss.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    size = target.label.shape[1:]
    if logits.shape[2:] == size:
        return logits
    return resize(logits, size, mode='bilinear', align_corners=align_corners, warning=False)


def _divisor(count: Tensor) -> Tensor:
    return count.where(count > 0, 1)


@MODELS.register_module()
class PseudoLabelCrossEntropy(nn.Module):
    """Weighted cross-entropy of the student against a pseudo-label, in float32 at the resolution of the label.

    Args:
        norm (str): Divisor, see :func:`weighted_pixel_loss`: ``'valid'`` (all pixels but padding), ``'kept'`` (pixels
            of non-zero weight) or ``'u2pl'`` (kept^2 / valid).
        loss_weight (float): Factor of the loss, at least 0.
        class_weight (Sequence[float], optional): How much a pixel of each class counts in both sums of the mean,
            positive. Give it where the labeled loss has it: without, the unlabeled images pull the network back to the
            frequent classes. A pixel without label counts as the mean class.

    Raises:
        ValueError: If an argument is out of its range; when called, if there are not as many class weights as channels.
    """

    def __init__(self,
                 norm: str = 'valid',
                 loss_weight: float = 1.0,
                 class_weight: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f'norm must be one of {NORMS}, got {norm!r}')
        if loss_weight < 0:
            raise ValueError(f'loss_weight must be at least 0, got {loss_weight}')
        self.norm = norm
        self.loss_weight = loss_weight
        self.register_buffer('class_weight', class_weight_tensor(class_weight), persistent=False)

    def forward(self, logits: Tensor, target: Target, align_corners: bool) -> Tensor:
        """Computes the loss.

        Args:
            logits (Tensor): [N, C, h, w] of the student, any float precision.
            target (Target): Maps of [N, H, W]. The label may be 255 where there is none; such pixels have no loss.
            align_corners (bool): Of the bilinear resize of the logits; take the decode head's.

        Returns:
            Tensor: Scalar float32.
        """
        logits = full_size_logits(logits, target, align_corners)
        loss, counts = pixel_cross_entropy(logits, target.label), target.valid
        if self.class_weight is not None:
            check_class_weight('unsup_loss', self.class_weight, logits)
            no_class = self.class_weight.mean()
            counts = counts * self.class_weight[target.label.where(target.label != 255, 0)].where(
                target.label != 255, no_class)
        return self.loss_weight * weighted_pixel_loss(loss, target.weight, counts, self.norm)


@MODELS.register_module()
class PseudoLabelKLDivergence(nn.Module):
    """``KL(P || S)`` of the student against the teacher's distribution, in float32 at the resolution of the label.

    Needs a labeler with ``soft=True``. Pixels are weighted, and the sum is divided, as in
    :class:`PseudoLabelCrossEntropy`.

    Args:
        norm (str): Divisor, see :func:`weighted_pixel_loss`.
        loss_weight (float): Factor of the loss, at least 0.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: When called, if the target holds no distribution.
    """

    def __init__(self, norm: str = 'valid', loss_weight: float = 1.0) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f'norm must be one of {NORMS}, got {norm!r}')
        if loss_weight < 0:
            raise ValueError(f'loss_weight must be at least 0, got {loss_weight}')
        self.norm, self.loss_weight = norm, loss_weight

    def forward(self, logits: Tensor, target: Target, align_corners: bool) -> Tensor:
        """Computes the loss.

        Args:
            logits (Tensor): [N, C, h, w] of the student, any float precision.
            target (SoftTarget): Maps of [N, H, W] and a distribution [N, C, H, W].
            align_corners (bool): Of the bilinear resize of the logits; take the decode head's.

        Returns:
            Tensor: Scalar float32.
        """
        if not isinstance(target, SoftTarget):
            raise TypeError('PseudoLabelKLDivergence needs a target with probabilities, found '
                            f'{type(target).__name__}: set soft=True in the labeler')
        score = full_size_logits(logits, target, align_corners).log_softmax(dim=1)
        loss = F.kl_div(score, target.probability, reduction='none').sum(dim=1)
        return self.loss_weight * weighted_pixel_loss(loss, target.weight, target.valid, self.norm)
