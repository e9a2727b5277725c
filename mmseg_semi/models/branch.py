"""One strong view: batch augments in a row, and the weight of its loss."""
from typing import Sequence

import torch

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View


class StrongBranch:
    """Makes a strong view from the weak one.

    Args:
        augments (Sequence[dict]): Batch augments, applied in order.
        loss_weight (float): Weight of the branch's loss, >= 0. Defaults to 1.

    Raises:
        ValueError: If ``loss_weight`` is negative.
    """

    def __init__(self, augments: Sequence[dict], loss_weight: float = 1.0) -> None:
        if loss_weight < 0:
            raise ValueError(f'branches: loss_weight must be >= 0, found {loss_weight}')
        self.augments = [BATCH_AUGMENTS.build(a) for a in augments]
        self.loss_weight = loss_weight

    def __call__(self, view: View, generator: torch.Generator) -> View:
        """Applies the augments; all draws come from ``generator``."""
        for augment in self.augments:
            view = augment(view, generator)
        return view
