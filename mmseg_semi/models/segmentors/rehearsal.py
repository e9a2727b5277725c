"""Tries the parts of the unlabeled phase on blank images: the first real ones may be hours away."""
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmseg_semi.models.branch import step_generator
from mmseg_semi.structures import Target, View

if TYPE_CHECKING:
    from mmseg_semi.models.segmentors.semi_encoder_decoder import SemiEncoderDecoder


def blank_view(images: Tensor) -> View:
    """Images [N, C, H, W] with one label everywhere."""
    valid = torch.ones_like(images[:, 0], dtype=torch.bool)
    return View(images, Target(label=valid.long(), weight=valid.float(), confidence=valid.float(), valid=valid))


def try_losses(model: 'SemiEncoderDecoder') -> None:
    """Lets labeler, branches and losses meet; whatever does not fit raises its own error."""
    def blank(size: tuple, flip: bool = False) -> Tensor:
        return torch.zeros(1, model.num_classes, *size)

    truth = blank_view(torch.zeros(1, 3, 8, 8))
    view = View(truth.images, model.labeler(blank((8, 8)), truth.target.valid, blank))
    for branch, loss in zip(model.branches, model.branch_losses, strict=True):
        joined = view.join(truth) if branch.labeled else view
        loss(blank((8, 8)).expand(len(joined.images), -1, -1, -1), joined.target, model.align_corners)


def try_views(model: 'SemiEncoderDecoder') -> None:
    """Makes the strong views of two crops, where the preprocessor knows their size."""
    mean, size = model.data_preprocessor.mean, model.data_preprocessor.size
    for branch in model.branches if size else ():
        branch(blank_view(mean.new_zeros(2, len(mean), *size)), step_generator(0, 0, 0))
