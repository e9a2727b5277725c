"""Online hard example mining by the rule of the semi-supervised reference codes (not that of mmseg's sampler)."""
import torch
from torch import Tensor

from mmseg_semi.registry import MODELS

from .valid_cross_entropy import ValidCrossEntropyLoss


def ohem_mask(p: Tensor, valid: Tensor, thresh: float, min_kept: int) -> Tensor:
    """Keeps the hard pixels: ``p <= max(thresh, min_kept-th smallest p)``, all if there are less than ``min_kept``.

    Args:
        p (Tensor): Probability of the true class, any shape, float in [0, 1]. NaN counts as hard, so that a diverged
            network shows in the loss.
        valid (Tensor): Same shape, bool; only valid pixels are counted, ranked and kept.
        thresh (float): Pixels at most this sure are always kept, in [0, 1].
        min_kept (int): Least number of pixels to keep, at least 0.

    Returns:
        Tensor: Same shape, bool.
    """
    if min_kept > p.numel():
        return valid
    if min_kept == 0:
        return valid & ~(p > thresh)
    # 2 ranks the ignored pixels behind every probability. Not kthvalue, which is slow and refused by deterministic mode
    # on GPUs. Whether there are too few valid pixels is known on the device only, hence both answers are computed.
    smallest = torch.where(valid, p, 2.).flatten().topk(min_kept, largest=False, sorted=False).values
    limit = smallest.amax().clamp(min=thresh)
    too_few = valid.sum() < min_kept
    return valid & (too_few | ~(p > limit))


@MODELS.register_module()
class OHEMCrossEntropyLoss(ValidCrossEntropyLoss):
    """Cross-entropy over the hard pixels, as in U2PL, PCR, CPS and UniMatch (``ProbOhemCrossEntropy2d``).

    With p the probability of the true class, n the number of labeled pixels on this rank and t = max(``thresh``, the
    ``min_kept``-th smallest p): the mean of -log p over the pixels with p <= t, or over all if n < ``min_kept``.
    mmseg's ``OHEMPixelSampler`` differs: ``min_kept`` per image, p < t, divided by all pixels.

    Args:
        thresh (float): Pixels at most this sure are always kept, in [0, 1].
        min_kept (int): Least number of pixels to keep over the whole batch of a rank, at least 0.
        loss_weight (float): Factor of the loss, at least 0.
        loss_name (str): Key of the loss in the log.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 thresh: float = 0.7,
                 min_kept: int = 100000,
                 loss_weight: float = 1.0,
                 loss_name: str = 'loss_ohem') -> None:
        super().__init__(loss_weight, loss_name=loss_name)
        if not 0 <= thresh <= 1:
            raise ValueError(f'thresh must be in [0, 1], got {thresh}')
        if min_kept < 0:
            raise ValueError(f'min_kept must be at least 0, got {min_kept}')
        self.thresh = thresh
        self.min_kept = min_kept

    def keep(self, loss: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`ValidCrossEntropyLoss.keep`; p comes from the loss itself, p = exp(-loss)."""
        return ohem_mask(torch.exp(-loss), valid, self.thresh, self.min_kept)
