"""Hides a random part of a grid of patches: the student has to complete what the teacher saw whole."""
import math
from typing import Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View

from .base import BatchAugment, Params, check_choice, draw_partner, uniform

FILLS = ('zero', 'noise', 'mix')
REGIONS = ('all', 'visible', 'masked')


def draw_cells(size: int, rows: int, columns: int, ratio: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Draws which cells of a grid stay visible; at least one per image.

    Args:
        size (int): Number of images N.
        rows (int): Cells from top to bottom.
        columns (int): Cells from left to right.
        ratio (Tensor): [N] float in [0, 1], the share to hide.
        mode (str): ``'bernoulli'`` hides every cell with that probability (MIC); ``'exact'`` hides
            ``floor(ratio * cells)`` of them.
        generator (torch.Generator): CPU generator.

    Returns:
        Tensor: [N, rows, columns] bool, true where visible.
    """
    cells = rows * columns
    draws = torch.rand(size, cells, generator=generator)
    rank = draws.argsort(dim=1).argsort(dim=1)  # cells in the order in which they are hidden
    if mode == 'exact':
        visible = rank >= (ratio * cells + 1e-3).floor()[:, None]
    else:
        visible = draws >= ratio[:, None]
    return (visible | (rank == cells - 1)).unflatten(1, (rows, columns))


@BATCH_AUGMENTS.register_module()
class PatchMask(BatchAugment):
    """Masks patches of the image; the pseudo-label stays that of the complete image.

    MaskMatch's masked task (https://arxiv.org/abs/2312.08631), with the mask of MIC (CVPR 2023), since MaskMatch's own
    grid, fill and ratios are not public. It is the last augment of its branch: a blur behind it would leak color across
    borders.

    Args:
        block_size (int): Side of a cell in pixels; the grid has ``round(side / block_size)`` cells, at least one, from
            top to bottom and from left to right. 8 or more a side keep the visible share steady.
        ratio (float | Sequence[float]): Share to hide, in [0, 1], or a range to draw it from for each image.
        ratio_mode (str): ``'bernoulli'`` or ``'exact'``, see :func:`draw_cells`.
        fill (str): What hidden pixels show: ``'zero'``, the color that normalization turns into 0 (the data set's
            mean); ``'noise'``, unit Gaussian after normalization; ``'mix'``, another image of the batch.
        loss_region (str): Which pixels are trained: ``'all'``, ``'visible'`` or ``'masked'``. The others lose their
            weight and leave the divisor.

    Raises:
        ValueError: If an option is unknown or out of range; when called, if the crop is one cell and ``ratio`` not 0.
    """

    def __init__(self,
                 block_size: int = 32,
                 ratio: Union[float, Sequence[float]] = 0.7,
                 ratio_mode: str = 'bernoulli',
                 fill: str = 'zero',
                 loss_region: str = 'all') -> None:
        self.ratio: Tuple[float, float] = tuple(ratio) if isinstance(ratio, Sequence) else (ratio, ratio)
        if len(self.ratio) != 2 or not 0 <= self.ratio[0] <= self.ratio[1] <= 1:
            raise ValueError(f'PatchMask.ratio must be a number in [0, 1] or a range (lo, hi) in it, found {ratio}')
        if block_size < 1:
            raise ValueError(f'PatchMask.block_size must be positive, found {block_size}')
        check_choice('ratio_mode', ratio_mode, ('bernoulli', 'exact'))
        check_choice('fill', fill, FILLS)
        check_choice('loss_region', loss_region, REGIONS)
        self.block_size, self.ratio_mode = block_size, ratio_mode
        self.fill, self.loss_region = fill, loss_region

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``cells`` [N, rows, columns] bool, and as ``fill`` needs ``seed`` int or ``partner`` [N]."""
        size, _, height, width = view.images.shape
        rows, columns = (max(1, math.floor(side / self.block_size + 0.5)) for side in (height, width))
        if rows * columns == 1 and self.ratio[1] > 0:  # the last cell stays visible: nothing would ever be hidden
            raise ValueError(f'PatchMask.block_size={self.block_size} makes one cell of a crop of {height} x {width} '
                             '(height x width), which is never hidden; expected two cells or more, that is a '
                             f'block_size of at most {2 * max(height, width) // 3}')
        ratio = uniform(*self.ratio, size, generator)
        params = dict(cells=draw_cells(size, rows, columns, ratio, self.ratio_mode, generator))
        if self.fill == 'noise':
            params['seed'] = int(torch.randint(2**63 - 1, (), generator=generator))
        elif self.fill == 'mix':
            params['partner'] = draw_partner('shuffle', size, generator)
        return params

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        images, target = view.images, view.target
        cells = params['cells'].to(images.device, non_blocking=True)
        visible = F.interpolate(cells[:, None].float(), images.shape[2:], mode='nearest')[:, 0] > 0
        view = view.with_images(torch.where(visible[:, None], images, self._hidden(images, params)))
        if self.loss_region == 'all':
            return view
        trained = visible if self.loss_region == 'visible' else ~visible
        return View(view.images, target.restrict(trained))

    def _hidden(self, images: Tensor, params: Params) -> Tensor:
        if self.fill == 'mix':
            return images[params['partner'].to(images.device, non_blocking=True)]
        mean = self.image_mean.to(images, non_blocking=True)
        if self.fill == 'zero':
            return mean
        # Drawn where the images are: a batch of noise is too much to send. It differs between kinds of devices.
        generator = torch.Generator(images.device).manual_seed(params['seed'])
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return mean + self.image_std.to(images, non_blocking=True) * noise
