"""CutMix: a box of each image is replaced by the same box of another image."""
import math
from typing import Tuple

import torch
from torch import Tensor

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View

from .base import PARTNERS, BatchAugment, Params, check_choice, check_probability, draw_partner

# The law of U2PL and PCR, that of FixMatch and UniMatch.
BOXES = ('half_width', 'area_ratio')


def cutmix_box(height: int, width: int, generator: torch.Generator, law: str) -> Tuple[int, int, int, int]:
    """Draws one box that lies inside an image.

    - ``'half_width'`` (U2PL, PCR): width a uniform integer in [floor(W/2) + 1, W - 1], more than half of the image;
      height = round(H W / 2 / width), so that half of the area is taken, up to rounding.
    - ``'area_ratio'`` (UniMatch, UniMatch V2, FixMatch): area A uniform in [0.02, 0.4] H W; then ratio r uniform in
      [0.3, 1/0.3], width = floor(sqrt(A / r)), height = floor(sqrt(A r)) and the corner uniform in the image, these
      drawn again until the box is inside.

    In the first law the corner is uniform over the places where the box fits.

    Args:
        height (int): H, in pixels.
        width (int): W, in pixels, at least 3.
        generator (torch.Generator): CPU generator.
        law (str): ``'half_width'`` or ``'area_ratio'``.

    Returns:
        tuple[int]: Top, left, height and width of the box.

    Raises:
        ValueError: If the law is unknown, or no box of it fits the image.
    """
    check_choice('box', law, BOXES)
    if width < 3:
        raise ValueError(f'CutMix needs a crop at least 3 pixels wide, got {height}x{width} (height x width)')

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def real(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    if law == 'half_width':
        w = integer(width // 2 + 1, width - 1)
        h = round(height * width / 2 / w)
        return integer(0, height - h), integer(0, width - w), h, w

    area = real(0.02, 0.4) * height * width
    for _ in range(10000):
        ratio = real(0.3, 1 / 0.3)
        w, h = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        top, left = integer(0, height - 1), integer(0, width - 1)
        if top + h <= height and left + w <= width:
            return top, left, h, w
    raise ValueError(f"CutMix found no box of law 'area_ratio' inside a crop of {height}x{width} (height x width); "
                     'expected a crop that is closer to a square')


@BATCH_AUGMENTS.register_module()
class CutMix(BatchAugment):
    """Replaces one box per image, in the image and in every map of the target alike.

    Args:
        box (str): Law of the box, ``'half_width'`` (U2PL, PCR) or ``'area_ratio'`` (UniMatch); see :func:`cutmix_box`.
        prob (float): Probability to mix, in [0, 1].
        per (str): Whether the gate of ``prob`` is drawn once per ``'batch'`` (U2PL, PCR) or per ``'image'`` (UniMatch).
        partner (str): Who gives: ``'next'`` (U2PL, PCR), ``'flip'`` (UniMatch V2) or ``'shuffle'``; see
            :func:`~mmseg_semi.models.augments.base.draw_partner`.

    Raises:
        ValueError: If an option is unknown or out of range; when called, if the crop is less than 3 pixels wide.
    """

    def __init__(self, box: str = 'half_width', prob: float = 0.5, per: str = 'batch', partner: str = 'next') -> None:
        check_choice('box', box, BOXES)
        check_choice('per', per, ('batch', 'image'))
        check_choice('partner', partner, PARTNERS)
        check_probability(prob)
        self.box = box
        self.prob = prob
        self.per = per
        self.partner = partner

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``box`` [N, 4] int64 (top, left, height, width; all 0 where not mixed) and ``partner`` [N] int64."""
        size, _, height, width = view.images.shape
        gate = torch.rand(size if self.per == 'image' else 1, generator=generator) < self.prob
        boxes = torch.tensor([cutmix_box(height, width, generator, self.box) for _ in range(size)])
        return dict(box=boxes * gate[:, None], partner=draw_partner(self.partner, size, generator))

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        device = view.images.device
        mask = box_mask(params['box'].to(device, non_blocking=True), *view.images.shape[2:])
        return view.mix(mask, params['partner'].to(device, non_blocking=True))


def box_mask(box: Tensor, height: int, width: int) -> Tensor:
    """Paints boxes.

    Args:
        box (Tensor): [N, 4] int64: top, left, height and width.
        height (int): H, in pixels.
        width (int): W, in pixels.

    Returns:
        Tensor: [N, H, W] bool, true inside the box.
    """
    top, left, h, w = box[..., None].unbind(1)
    rows = torch.arange(height, device=box.device)
    cols = torch.arange(width, device=box.device)
    rows = (rows >= top) & (rows < top + h)
    cols = (cols >= left) & (cols < left + w)
    return rows[:, :, None] & cols[:, None, :]
