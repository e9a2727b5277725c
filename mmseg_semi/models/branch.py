"""One strong view: batch augments in a row, and how the student learns from it."""
from typing import Optional, Sequence

import torch
from torch import Tensor

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View


class StrongBranch:
    """Makes a strong view from the weak one.

    Args:
        augments (Sequence[dict]): Batch augments, applied in order; may be empty.
        loss_weight (float): Weight of the branch's loss, >= 0. Defaults to 1.
        update_bn (bool): Whether the student's BN running statistics learn from this view. False for views that look
            unlike any real image: the view then passes the student alone, normalized by its own batch statistics, and
            leaves no trace in the running ones. Not with activation checkpointing. Defaults to True.
        mean, std (Tensor, optional): [3, 1, 1], RGB in [0, 1], handed to the augments; see :class:`BatchAugment`.

    Raises:
        ValueError: If ``loss_weight`` is negative.
    """

    def __init__(self,
                 augments: Sequence[dict],
                 loss_weight: float = 1.0,
                 update_bn: bool = True,
                 mean: Optional[Tensor] = None,
                 std: Optional[Tensor] = None) -> None:
        if loss_weight < 0:
            raise ValueError(f'branches: loss_weight must be >= 0, found {loss_weight}')
        self.augments = [BATCH_AUGMENTS.build(a) for a in augments]
        for augment in self.augments:
            if mean is not None:
                augment.image_mean, augment.image_std = mean, std
        self.loss_weight, self.update_bn = loss_weight, update_bn

    def __call__(self, view: View, generator: torch.Generator) -> View:
        """Applies the augments; all draws come from ``generator``."""
        for augment in self.augments:
            view = augment(view, generator)
        return view
