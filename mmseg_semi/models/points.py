"""Reads a feature map at a few pixels of the image, as if it had been resized to the image first.

PCR resizes its 512-channel feature to the crop and then picks 1024 pixels. Resizing 8 images of 513 x 513 takes over
4 GB; the same numbers come from four reads per picked pixel.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def stratified_pixels(height: int, width: int, grid_size: int, generator: torch.Generator) -> Tuple[Tensor, Tensor]:
    """Draws one uniform pixel in each cell of a regular grid (PCR ``patch_select``, spec section 4 item 5).

    Cells measure ``floor(height / grid_size) x floor(width / grid_size)``; the remainder at the bottom and right is
    never drawn, as published.

    Args:
        height (int): Image height in pixels.
        width (int): Image width in pixels.
        grid_size (int): Cells per side, G.
        generator (torch.Generator): CPU generator.

    Returns:
        tuple[Tensor, Tensor]: Rows and columns, [G * G] int64, on the CPU, cells in row-major order.

    Raises:
        ValueError: If the image has fewer than ``grid_size`` pixels along a side.
    """
    cell_h, cell_w = height // grid_size, width // grid_size
    if min(cell_h, cell_w) < 1:
        raise ValueError(f'prototype_head.grid_size: {grid_size} cells per side do not fit a crop of '
                         f'{height}x{width} pixels; use a larger crop or grid_size <= {min(height, width)}')
    cells = torch.arange(grid_size)
    row_in_cell = torch.randint(cell_h, (grid_size, grid_size), generator=generator)
    column_in_cell = torch.randint(cell_w, (grid_size, grid_size), generator=generator)
    rows = cells[:, None] * cell_h + row_in_cell
    columns = cells[None, :] * cell_w + column_in_cell
    return rows.flatten(), columns.flatten()


def _axis(index: Tensor, size: int, image_size: int, align_corners: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbor and the weight of the upper one, along one axis, by ``F.interpolate``'s rule."""
    if align_corners:
        position = index.double() * ((size - 1) / max(image_size - 1, 1))
    else:
        position = ((index.double() + 0.5) * (size / image_size) - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    return low, high, (position - low).float()


class PointReader:
    """Bilinear reads of a [N, D, h, w] feature at fixed pixels of an H x W image.

    Args:
        rows (Tensor): [P] int64 pixel rows in 0..H-1.
        columns (Tensor): [P] int64 pixel columns in 0..W-1.
        image_size (tuple[int, int]): (H, W).
        align_corners (bool): As the head's resize.
    """

    def __init__(self, rows: Tensor, columns: Tensor, image_size: Tuple[int, int], align_corners: bool) -> None:
        self.rows, self.columns = rows, columns
        self.image_size, self.align_corners = image_size, align_corners

    def corners(self, feature: Tensor) -> Tuple[Tensor, Tensor]:
        """Flat indices into h * w and weights of the four neighbors, both [4, P], on the feature's device."""
        height, width = feature.shape[-2:]
        top, bottom, down = _axis(self.rows, height, self.image_size[0], self.align_corners)
        left, right, across = _axis(self.columns, width, self.image_size[1], self.align_corners)
        index = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right])
        weight = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
        return (index.to(feature.device, non_blocking=True), weight.to(feature.device, non_blocking=True))

    def read(self, feature: Tensor) -> Tensor:
        """[N, P, D] float32 values at the pixels; gradients flow densely (use for no-grad reads)."""
        return _gather(feature, *self.corners(feature))

    def __call__(self, feature: Tensor) -> Tuple[Tensor, Tensor]:
        """For :meth:`FeatureTap.reading`: the feature to pass on, and the values at the pixels, [N, P, D] float32.

        The passed-on feature carries the gradient of both: the points' gradient is added into the gradient that the
        tapped module sends back, so that no second gradient of the feature's full size is ever made.
        """
        return _TapPoints.apply(feature, *self.corners(feature))


def _rows(feature: Tensor) -> Optional[Tensor]:
    """A view [N, h * w, D] of a feature in channels_last, where each pixel is one piece of memory; else None."""
    if feature.is_contiguous() or not feature.is_contiguous(memory_format=torch.channels_last):
        return None
    return feature.permute(0, 2, 3, 1).view(len(feature), -1, feature.shape[1])


def _gather(feature: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    rows = _rows(feature)
    if rows is not None:
        return sum(rows.index_select(1, corner).float() * share[:, None]
                   for corner, share in zip(index, weight, strict=True))
    flat = feature.flatten(2)  # [N, D, h * w]
    shape = (*flat.shape[:2], index.shape[1])
    out = torch.zeros(shape, device=feature.device)
    # Corner by corner: one [N, D, P] at a time. gather, since index_select is slow along the last axis on a CPU.
    for corner, share in zip(index, weight, strict=True):
        out.addcmul_(flat.gather(2, corner.expand(shape)).float(), share)
    return out.transpose(1, 2).contiguous()


class _TapPoints(torch.autograd.Function):

    @staticmethod
    def forward(ctx, feature: Tensor, index: Tensor, weight: Tensor) -> Tuple[Tensor, Tensor]:
        ctx.save_for_backward(index, weight)
        ctx.dtype = feature.dtype
        return feature.view_as(feature), _gather(feature, index, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_feature: Tensor, grad_points: Tensor):
        index, weight = ctx.saved_tensors
        # In place: the tapped module starts with a convolution, whose input gradient is freshly made and ours alone.
        rows = _rows(grad_feature)
        if rows is not None:
            for corner, share in zip(index, weight, strict=True):
                rows.index_add_(1, corner, (grad_points * share[:, None]).to(ctx.dtype))
            return grad_feature, None, None
        grad_feature, grad_points = grad_feature.contiguous(), grad_points.transpose(1, 2).contiguous()
        for corner, share in zip(index, weight, strict=True):
            grad_feature.flatten(2).index_add_(2, corner, (grad_points * share).to(ctx.dtype))
        return grad_feature, None, None
