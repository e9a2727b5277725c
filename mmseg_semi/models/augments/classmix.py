"""ClassMix: the pixels of half of the classes of an image are pasted onto another image."""
import torch
import torch.nn.functional as F

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View

from .base import PARTNERS, BatchAugment, Params, check_choice, check_probability, draw_partner

# Labels are 0..254 in uint8 files, 255 is no class.
NO_CLASS = 255


@BATCH_AUGMENTS.register_module()
class ClassMix(BatchAugment):
    """Pastes the pixels of floor(n / 2) random classes of the partner, n being the classes in its pseudo-label.

    ClassMix (Olsson et al., WACV 2021), equation M = [argmax_c f(x_A) in c], x' = M * x_A + (1 - M) * x_B, where x_A is
    the partner. Padding is neither counted as a class nor pasted; pixels of weight 0 are.

    Args:
        prob (float): Probability to mix, drawn per image, in [0, 1].
        partner (str): Who gives: ``'next'``, ``'flip'`` or ``'shuffle'``; see
            :func:`~mmseg_semi.models.augments.base.draw_partner`.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(self, prob: float = 1.0, partner: str = 'next') -> None:
        check_choice('partner', partner, PARTNERS)
        check_probability(prob)
        self.prob = prob
        self.partner = partner

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``gate`` [N] bool, ``scores`` [N, 255] float (lottery of the classes), ``partner`` [N] int64."""
        size = len(view.images)
        return dict(
            gate=torch.rand(size, generator=generator) < self.prob,
            scores=torch.rand(size, NO_CLASS, generator=generator),
            partner=draw_partner(self.partner, size, generator))

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        device = view.images.device
        gate, scores, partner = (
            params[name].to(device, non_blocking=True) for name in ('gate', 'scores', 'partner'))
        valid = view.target.valid
        # Padding gets a column of its own, so that it can neither make a class present nor be chosen.
        label = torch.where(valid, view.target.label, NO_CLASS).flatten(1)
        present = torch.zeros(len(label), NO_CLASS + 1, dtype=torch.bool, device=device).scatter_(1, label, True)
        present = present[:, :NO_CLASS]
        rank = torch.where(present, scores, -1.).argsort(1, descending=True).argsort(1)
        chosen = rank < present.sum(1, keepdim=True) // 2
        cut = F.pad(chosen, (0, 1)).gather(1, label).view_as(valid)
        return view.mix(cut[partner] & gate[:, None, None], partner)
