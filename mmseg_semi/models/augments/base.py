"""What every batch augment has in common: draw once on the CPU, then apply to all maps alike."""
import functools
import warnings
from abc import ABC, abstractmethod
from typing import Dict, Union

import torch
from torch import Tensor

from mmseg_semi.structures import View

Params = Dict[str, Union[Tensor, list]]

PARTNERS = ('next', 'shuffle', 'flip')


class BatchAugment(ABC):
    """A random change of a whole batch of views, on the device where the images are.

    All randomness is in :meth:`draw` and comes from the generator that the step passes in, which lives on the CPU: the
    same seed gives the same draws on every device, and a logged draw can be replayed with :meth:`apply`. An augment
    never edits the view it is given.

    Attributes:
        image_mean, image_std (Tensor): [3, 1, 1] float, RGB in [0, 1]: what normalization subtracts and divides by.
            Images are augmented before it; the owner of an augment that fills in color sets these.
    """

    image_mean = torch.full((3, 1, 1), 0.5)
    image_std = torch.full((3, 1, 1), 0.25)

    @abstractmethod
    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws the parameters of one call. Reads the shapes of the view, never its values.

        Args:
            view (View): The batch to augment.
            generator (torch.Generator): CPU generator; the only source of randomness.

        Returns:
            dict: What :meth:`apply` needs; tensors are on the CPU.
        """

    @abstractmethod
    def apply(self, view: View, params: Params) -> View:
        """Applies drawn parameters.

        Args:
            view (View): The batch to augment; left as it is.
            params (dict): From :meth:`draw`.

        Returns:
            View: The augmented batch, same shapes and data types.
        """

    def __call__(self, view: View, generator: torch.Generator) -> View:
        """Draws, then applies."""
        return self.apply(view, self.draw(view, generator))


def uniform(low: float, high: float, size: int, generator: torch.Generator) -> Tensor:
    """Draws ``size`` float32 numbers uniformly from [low, high)."""
    return low + (high - low) * torch.rand(size, generator=generator)


def draw_partner(kind: str, size: int, generator: torch.Generator) -> Tensor:
    """Chooses for every image of a batch the image that it is mixed with.

    Args:
        kind (str): ``'next'``: (i + 1) mod N (U2PL); ``'flip'``: N - 1 - i (UniMatch V2), which leaves the middle image
            of an odd batch alone; ``'shuffle'``: one random cycle through the batch, nobody meets itself.
        size (int): Number of images N.
        generator (torch.Generator): CPU generator.

    Returns:
        Tensor: [N] int64. With one image there is no partner but itself; a warning says so once.
    """
    if size == 1:
        _warn_single_image()
    index = torch.arange(size)
    if kind == 'next':
        return index.roll(-1)
    if kind == 'flip':
        return index.flip(0)
    order = torch.randperm(size, generator=generator)
    return torch.empty_like(index).scatter_(0, order, order.roll(-1))


def check_choice(name: str, value: str, choices: tuple) -> None:
    """Raises ValueError if an option is not one of its choices."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {choices}, got {value!r}')


def check_probability(value: float) -> None:
    """Raises ValueError if ``prob`` is outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f'prob must be in [0, 1], got {value}')


@functools.cache
def _warn_single_image() -> None:
    warnings.warn('mixing with one unlabeled image per GPU changes nothing: an image has no partner but itself; raise '
                  'the number of unlabeled images per GPU', stacklevel=4)
