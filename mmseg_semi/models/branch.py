"""One strong view: batch augments in a row, and how the student learns from it."""
from typing import Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from mmseg_semi.models.augments import PatchMask
from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View


def step_generator(seed: int, rank: int, iteration: int) -> torch.Generator:
    """A CPU generator that depends on nothing else, so a resumed run draws what the unbroken run would have drawn."""
    state = np.random.SeedSequence([seed, rank, iteration]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class StrongBranch:
    """Makes a strong view from the weak one.

    Args:
        augments (Sequence[dict]): Batch augments, applied in order; may be empty. Nothing may come behind a
            :class:`PatchMask` (MaskMatch spec section 4).
        loss_weight (float): Weight of the branch's loss, >= 0. Defaults to 1.
        update_bn (bool): Whether the student's BN running statistics learn from this view. False for views that look
            unlike any real image: the view then passes the student alone, normalized by its own batch statistics, and
            leaves no trace in the running ones. Not with activation checkpointing. Defaults to True.
        labeled (bool): Whether the branch also shows the labeled images, with their ground truth as target. Defaults to
            False.
        ramp_iters (int): The weight rises linearly to ``loss_weight`` over so many iterations of the semi-supervised
            phase. Defaults to 0, no ramp.
        unsup_loss (dict, optional): Loss of this view in place of the model's.
        mean, std (Tensor, optional): [3, 1, 1], RGB in [0, 1], handed to the augments; see :class:`BatchAugment`.
        name (str): What error messages call the branch.

    Raises:
        ValueError: If ``loss_weight`` or ``ramp_iters`` is negative, or an augment comes behind a ``PatchMask``.
    """

    def __init__(self,
                 augments: Sequence[dict],
                 loss_weight: float = 1.0,
                 update_bn: bool = True,
                 labeled: bool = False,
                 ramp_iters: int = 0,
                 unsup_loss: Optional[dict] = None,
                 mean: Optional[Tensor] = None,
                 std: Optional[Tensor] = None,
                 name: str = 'branch') -> None:
        if loss_weight < 0:
            raise ValueError(f'{name}: loss_weight must be >= 0, found {loss_weight}')
        if ramp_iters < 0:
            raise ValueError(f'{name}: ramp_iters must be >= 0, found {ramp_iters}')
        self.augments = [BATCH_AUGMENTS.build(a) for a in augments]
        if any(isinstance(augment, PatchMask) for augment in self.augments[:-1]):
            raise ValueError(f'{name}: nothing may come behind PatchMask, found augments '
                             f'{[type(augment).__name__ for augment in self.augments]}: a blur would leak color across '
                             'the borders of its cells, a change of color would show in hidden ones; put it last')
        for augment in self.augments:
            if mean is not None:
                augment.image_mean, augment.image_std = mean, std
        self.loss_weight, self.update_bn, self.labeled = loss_weight, update_bn, labeled
        self.ramp_iters, self.unsup_loss = ramp_iters, unsup_loss

    def weight(self, iteration: int) -> float:
        """Weight of the loss in an iteration of the semi-supervised phase, counted from 0."""
        return self.loss_weight * (min((iteration + 1) / self.ramp_iters, 1) if self.ramp_iters else 1)

    def __call__(self, view: View, generator: torch.Generator) -> View:
        """Applies the augments; all draws come from ``generator``."""
        for augment in self.augments:
            view = augment(view, generator)
        return view
