"""Cross-entropy averaged over the pixels that have a label."""
import math
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_semi.registry import MODELS


def pixel_cross_entropy(logits: Tensor, label: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross-entropy of every pixel, at least in float32 even under autocast.

    Args:
        logits (Tensor): [N, C, H, W] float of any precision.
        label (Tensor): [N, H, W] int64 in 0..C-1 or ``ignore_index``.
        ignore_index (int): Label of pixels without loss.

    Returns:
        Tensor: [N, H, W] float32 (float64 for float64 logits), 0 where ignored.
    """
    # Neither the conversion nor the loss is on autocast's list of half precision functions.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, label, reduction='none', ignore_index=ignore_index)


def class_weight_tensor(class_weight: Optional[Sequence[float]]) -> Optional[Tensor]:
    """Class weights as float32 [C].

    Raises:
        ValueError: If one is not a positive number.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        raise ValueError(f'class_weight must be a list of numbers, got {class_weight!r}: files are not read')
    if not all(0 < weight < math.inf for weight in class_weight):
        raise ValueError(f'class_weight must hold positive numbers, got {list(class_weight)}')
    return torch.tensor(class_weight, dtype=torch.float32)


def check_class_weight(owner: str, class_weight: Tensor, logits: Tensor) -> None:
    """Compares class weights [C] with logits [N, C, ...].

    Raises:
        ValueError: If their numbers of classes differ.
    """
    if len(class_weight) != logits.shape[1]:
        raise ValueError(f'{owner}.class_weight has {len(class_weight)} weights for {logits.shape[1]} classes')


@MODELS.register_module()
class ValidCrossEntropyLoss(nn.Module):
    """Mean cross-entropy over the non-ignored pixels of this rank; usable as ``loss_decode`` of any mmseg head.

    The same number as mmseg's ``CrossEntropyLoss(avg_non_ignore=True)``, but without its host sync, and exactly 0
    (connected to the graph) where that one divides 0 by 0: when every pixel is ignored.

    Args:
        loss_weight (float): Factor of the loss, at least 0.
        class_weight (Sequence[float], optional): Positive weight of each class. The mean is then a weighted one,
            divided by the weights of the pixels, as torch's own.
        loss_name (str): Key of the loss in the log; contains "loss", or mmengine would not optimize it.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 loss_weight: float = 1.0,
                 class_weight: Optional[Sequence[float]] = None,
                 loss_name: str = 'loss_ce') -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight must be at least 0, got {loss_weight}')
        if 'loss' not in loss_name:
            raise ValueError(f"loss_name must contain 'loss', got {loss_name!r}")
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self.register_buffer('class_weight', class_weight_tensor(class_weight), persistent=False)

    def keep(self, loss: Tensor, valid: Tensor) -> Tensor:
        """Chooses the pixels to average over.

        Args:
            loss (Tensor): [N, H, W] cross-entropy, detached, 0 where ignored.
            valid (Tensor): [N, H, W] bool, false where ignored.

        Returns:
            Tensor: [N, H, W] bool, a subset of ``valid``.
        """
        return valid

    def forward(self,
                cls_score: Tensor,
                label: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None,
                ignore_index: int = 255,
                **kwargs) -> Tensor:
        """Computes the loss. The divisor is the number of kept pixels of the whole batch, whatever their ``weight``;
        with class weights, the sum of these.

        Args:
            cls_score (Tensor): [N, C, H, W] logits.
            label (Tensor): [N, H, W] int64 in 0..C-1 or ``ignore_index``.
            weight (Tensor, optional): [N, H, W] factor per pixel.
            avg_factor (None): Part of mmseg's interface, not supported.
            reduction_override (None): Part of mmseg's interface, not supported.
            ignore_index (int): Label of ignored pixels.
            **kwargs: Ignored; some heads pass more.

        Returns:
            Tensor: Scalar float32.

        Raises:
            ValueError: If ``avg_factor`` or ``reduction_override`` is given, or there are not as many class weights as
                channels.
        """
        if avg_factor is not None or reduction_override is not None:
            raise ValueError(f'{type(self).__name__} always averages over the kept pixels; expected no avg_factor '
                             f'and no reduction_override, got {avg_factor} and {reduction_override!r}')
        loss = pixel_cross_entropy(cls_score, label, ignore_index)
        share = self.keep(loss.detach(), label != ignore_index).to(loss.dtype)
        if self.class_weight is not None:
            check_class_weight('loss_decode', self.class_weight, cls_score)
            share = share * self.class_weight[label.where(label != ignore_index, 0)]
        if weight is not None:
            loss = loss * weight
        divisor = share.sum()
        return self.loss_weight * (loss * share).sum() / divisor.where(divisor > 0, 1)
