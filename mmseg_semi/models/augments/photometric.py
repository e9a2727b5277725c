"""Changes of color and sharpness; the target stays as it is.

The formulas are those of torchvision and PIL, the units of the published recipes. kornia does what is more than a line
(its own ``adjust_brightness`` and ``adjust_contrast`` are other operations under the same names).
"""
import math
import warnings
from typing import Tuple

import torch
from kornia.enhance import adjust_hue
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View

from .base import BatchAugment, Params, check_probability, uniform


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``factor * images + (1 - factor) * other``, clipped to [0, 1]; a factor above 1 moves away from ``other``."""
    return torch.lerp(other, images, factor).clamp_(0, 1)


def gray(images: Tensor) -> Tensor:
    """Luma of RGB images [N, 3, H, W] by ITU-R 601, [N, 1, H, W]."""
    r, g, b = images.split(1, dim=1)
    return 0.299 * r + 0.587 * g + 0.114 * b


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scales [N, C, H, W] images by ``factor`` [N, 1, 1, 1], clipped to [0, 1]."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends every image with its mean gray value (without three channels: its mean)."""
    base = gray(images) if images.shape[1] == 3 else images
    return blend(images, base.mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends every RGB image with its gray version."""
    return blend(images, gray(images), factor)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turns the hue of RGB images by ``factor`` turns of the color wheel, in [-0.5, 0.5]."""
    return adjust_hue(images, factor.flatten() * (2 * math.pi)).clamp_(0, 1)


# Also the order in which factors are drawn.
JITTERS = dict(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)


@BATCH_AUGMENTS.register_module()
class ColorJitter(BatchAugment):
    """Random brightness, contrast, saturation and hue, as in torchvision, with factors per image.

    The factors are uniform in [max(0, 1 - x), 1 + x], that of the hue in [-x, x] turns. The operations follow each
    other in one random order per call (torchvision: per image). An operation of range 0 is skipped; on images that do
    not have 3 channels saturation and hue are, which have no meaning there, and one warning says so.

    Args:
        brightness (float): Range, at least 0.
        contrast (float): Range, at least 0.
        saturation (float): Range, at least 0; of RGB images.
        hue (float): Range in turns of the color wheel, in [0, 0.5]; of RGB images.
        prob (float): Probability to change an image, in [0, 1].

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(self,
                 brightness: float = 0.5,
                 contrast: float = 0.5,
                 saturation: float = 0.5,
                 hue: float = 0.25,
                 prob: float = 0.8) -> None:
        self.ranges = dict(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        for name, value in self.ranges.items():
            if value < 0 or (name == 'hue' and value > 0.5):
                raise ValueError(f'{name} must be at least 0{" and at most 0.5" * (name == "hue")}, got {value}')
        check_probability(prob)
        self.prob = prob

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``gate`` [N] bool, ``order`` (names of the operations) and one [N] float of factors per name."""
        size = len(view.images)
        params = dict(gate=torch.rand(size, generator=generator) < self.prob)
        order = torch.randperm(len(JITTERS), generator=generator).tolist()
        for name, value in self.ranges.items():
            low, high = (-value, value) if name == 'hue' else (max(0., 1 - value), 1 + value)
            params[name] = uniform(low, high, size, generator)
        names = list(JITTERS)
        params['order'] = [names[i] for i in order if self.ranges[names[i]] > 0]
        return params

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        images = view.images
        for name in params['order']:
            if name in ('saturation', 'hue') and not _is_rgb(images, f'{name} of ColorJitter'):
                continue
            images = JITTERS[name](images, _per_image(params[name], images))
        return view.with_images(torch.where(_per_image(params['gate'], images), images, view.images))


@BATCH_AUGMENTS.register_module()
class RandomGrayscale(BatchAugment):
    """Replaces all channels of an RGB image by its luma; images of other channels stay as they are, with a warning.

    Args:
        prob (float): Probability per image, in [0, 1].

    Raises:
        ValueError: If ``prob`` is out of range.
    """

    def __init__(self, prob: float = 0.2) -> None:
        check_probability(prob)
        self.prob = prob

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``gate`` [N] bool."""
        return dict(gate=torch.rand(len(view.images), generator=generator) < self.prob)

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        if not _is_rgb(view.images, 'RandomGrayscale'):
            return view
        return view.with_images(torch.where(_per_image(params['gate'], view.images), gray(view.images), view.images))


@BATCH_AUGMENTS.register_module()
class GaussianBlur(BatchAugment):
    """Gaussian blur with one sigma per image, cut at three times the largest sigma, mirrored at the border.

    Args:
        sigma (tuple[float]): Range of the uniform standard deviation, in pixels, 0 < low <= high.
        prob (float): Probability per image, in [0, 1].

    Raises:
        ValueError: If an option is out of range; when called, if the kernel reaches beyond the mirrored image.
    """

    def __init__(self, sigma: Tuple[float, float] = (0.1, 2.0), prob: float = 0.5) -> None:
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f'sigma must be (low, high) with 0 < low <= high, got {sigma}')
        check_probability(prob)
        self.sigma = tuple(sigma)
        self.prob = prob
        self.radius = math.ceil(3 * sigma[1])

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``gate`` [N] bool and ``sigma`` [N] float in pixels."""
        size = len(view.images)
        return dict(
            gate=torch.rand(size, generator=generator) < self.prob, sigma=uniform(*self.sigma, size, generator))

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        images = view.images
        if min(images.shape[2:]) <= self.radius:
            raise ValueError(f'GaussianBlur with sigma up to {self.sigma[1]} reaches {self.radius} pixels and needs a '
                             f'larger crop, got {list(images.shape[2:])}')
        # On the CPU, where sigma is: a few numbers, and no constant has to wait for the device.
        kernel = get_gaussian_kernel1d(2 * self.radius + 1, params['sigma'][:, None])
        kernel = kernel.to(images.device, images.dtype, non_blocking=True)
        blurred = filter2d_separable(images, kernel, kernel, border_type='reflect').clamp_(0, 1)
        return view.with_images(torch.where(_per_image(params['gate'], images), blurred, images))


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, non_blocking=True)[:, None, None, None]


def _is_rgb(images: Tensor, who: str) -> bool:
    if images.shape[1] != 3:
        warnings.warn(
            f'{who} is left out: it needs RGB, and these images have {images.shape[1]} channels', stacklevel=2)
    return images.shape[1] == 3
