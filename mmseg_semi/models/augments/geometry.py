"""Geometric changes after labeling: image, label, weight, confidence and validity move together, on the device."""
from dataclasses import fields, replace
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import Target, View

from .base import BatchAugment, Params, check_probability, uniform


def reflected_index(size: int, target: int, device: torch.device) -> Tensor:
    """Indices that read a line of ``size`` pixels as one of ``target`` pixels, reflected at its end pixels.

    Unlike torch's ``reflect`` it goes on reflecting where the line is shorter than half of what is wanted.

    Args:
        size (int): Pixels that there are, at least 1.
        target (int): Pixels that are wanted.
        device (torch.device): Of the result.

    Returns:
        Tensor: [target] int64 in 0..size-1; 0, 1, .., size-1, size-2, .., 1, 0, 1, ..
    """
    period = max(2 * (size - 1), 1)
    place = torch.arange(target, device=device) % period
    return torch.where(place < size, place, period - place)


@BATCH_AUGMENTS.register_module()
class RandomScaleCrop(BatchAugment):
    """Scales every image by its own factor and cuts the old size out of it (CSS's first strong pass).

    The image is resized bilinearly with antialiasing, the maps to the nearest pixel center. An image that became
    smaller than the crop lies at the top left; the rest shows its reflection and is padding to the target: label 255,
    weight and confidence 0, not valid.

    Args:
        ratio_range (Sequence[float]): Range of the factor, positive. CSS: (0.5, 1.5) on VOC, (0.5, 2.0) on Cityscapes.

    Raises:
        ValueError: If the range is not ``0 < lo <= hi``.
    """

    def __init__(self, ratio_range: Sequence[float] = (0.5, 1.5)) -> None:
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(f'RandomScaleCrop.ratio_range must be (lo, hi) with 0 < lo <= hi, found {ratio_range}')
        self.ratio_range = tuple(ratio_range)

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``size`` (height, width) after scaling and ``offset`` (top, left) of the crop: lists of ints."""
        number, _, height, width = view.images.shape
        sizes, offsets = [], []
        for ratio in uniform(*self.ratio_range, number, generator).double().tolist():
            size = (max(1, int(height * ratio)), max(1, int(width * ratio)))
            sizes.append(size)
            offsets.append(tuple(
                int(torch.randint(max(scaled - side, 0) + 1, (), generator=generator))
                for scaled, side in zip(size, (height, width), strict=True)))
        return dict(size=sizes, offset=offsets)

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        one_by_one = enumerate(zip(params['size'], params['offset'], strict=True))
        images, targets = zip(*(self._one(view, i, *geometry) for i, geometry in one_by_one), strict=True)
        maps = {f.name: torch.stack([getattr(target, f.name) for target in targets]) for f in fields(view.target)}
        return View(torch.stack(images), replace(view.target, **maps))

    @staticmethod
    def _one(view: View, i: int, size: tuple, offset: tuple) -> Tuple[Tensor, Target]:
        height, width = view.images.shape[2:]
        device = view.images.device
        image = F.interpolate(view.images[i:i + 1], size, mode='bilinear', align_corners=False, antialias=True)[0]
        # The rule of 'nearest-exact', in whole numbers: exact for labels of any type.
        rows, columns = (((2 * torch.arange(new, device=device) + 1) * old).div(2 * new, rounding_mode='floor')
                         for new, old in zip(size, (height, width), strict=True))
        y, x = (reflected_index(scaled, side, device) + start
                for scaled, side, start in zip(size, (height, width), offset, strict=True))
        inside = ((torch.arange(height, device=device) < size[0])[:, None]
                  & (torch.arange(width, device=device) < size[1])[None])
        target = view.target.map(lambda m: m[i][..., rows[y], :][..., columns[x]])
        return image[:, y][:, :, x], target.pad_outside(inside)


@BATCH_AUGMENTS.register_module()
class RandomMirror(BatchAugment):
    """Mirrors images left to right, with their target.

    Args:
        prob (float): Probability per image, in [0, 1].

    Raises:
        ValueError: If ``prob`` is out of range.
    """

    def __init__(self, prob: float = 0.5) -> None:
        check_probability(prob)
        self.prob = prob

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``gate`` [N] bool, true where mirrored."""
        return dict(gate=torch.rand(len(view.images), generator=generator) < self.prob)

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        gate = params['gate'].to(view.images.device, non_blocking=True)

        def mirror(x: Tensor) -> Tensor:
            return torch.where(gate.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)

        return View(mirror(view.images), view.target.map(mirror))
