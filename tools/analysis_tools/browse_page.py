"""Draws what one training step shows to the student: the picture of tools/analysis_tools/browse_semi.py."""
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmseg_semi.structures import Step, Target, TwoSpaceTarget

SIDE = (150, 320)  # of a cell, pixels: small crops are enlarged to the first, large ones reduced to the second
GAP, LINE, MARGIN, FONT = 6, 18, 10, 13
NO_LABEL, PADDING = (255, 255, 255), (255, 0, 255)  # RGB
FADE = 0.25  # what is left of the color of a label with weight 0
INK, PAPER = (30, 30, 30), (245, 245, 245)

Cell = Optional[np.ndarray]
Column = Tuple[str, List[Cell]]


def bytes_of(images: Tensor) -> np.ndarray:
    """Images, RGB in [0, 1], [N, C, H, W], as uint8 [N, H, W, 3]; of other bands the first three, or one in gray."""
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    return (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def paint_labels(label: Tensor, palette: np.ndarray) -> np.ndarray:
    """Labels [N, H, W] in the colors [C, 3] of their classes, uint8 [N, H, W, 3]; what is no class is white."""
    colors = np.full((256, 3), NO_LABEL, np.uint8)
    colors[:len(palette)] = palette
    return colors[label.cpu().numpy().astype(np.uint8)]


def paint_target(target: Target, palette: np.ndarray, fade: bool = False) -> np.ndarray:
    """The label of a target; padding is magenta, and with ``fade`` pixels of weight 0 are pale."""
    colors = paint_labels(target.label, palette)
    if fade:
        pale = (FADE * colors + (1 - FADE) * np.array(NO_LABEL)).astype(np.uint8)
        colors = np.where((target.weight > 0).cpu().numpy()[..., None], colors, pale)
    return _mark_padding(colors, target.valid)


def paint_scores(score: Tensor, valid: Tensor) -> np.ndarray:
    """Scores [N, H, W] in [0, 1] from dark blue to yellow, uint8 [N, H, W, 3]; padding is magenta."""
    gray = (255 * score).round().clamp(0, 255).byte().cpu().numpy()
    colors = np.stack([cv2.applyColorMap(one, cv2.COLORMAP_VIRIDIS)[..., ::-1] for one in gray])
    return _mark_padding(colors, valid)


def paint_weights(target: Target) -> np.ndarray:
    """Weights in gray, 1 is white; padding is magenta."""
    gray = (255 * target.weight).round().clamp(0, 255).byte().cpu().numpy()
    return _mark_padding(gray[..., None].repeat(3, axis=3), target.valid)


def _mark_padding(colors: np.ndarray, valid: Tensor) -> np.ndarray:
    return np.where(valid.cpu().numpy()[..., None], colors, np.array(PADDING, np.uint8))


def columns_of(step: Step, palette: np.ndarray) -> List[Column]:
    """The columns of the unlabeled block: weak view, its target, then every strong view with what it is trained on.

    Args:
        step (Step): With ``batch``, ``target`` and ``mixed``.
        palette (ndarray): RGB uint8 [C, 3].
    """
    target = step.target
    columns = [('weak view', list(bytes_of(step.batch.weak))),
               ('pseudo-label', list(paint_target(target, palette))),
               ('confidence', list(paint_scores(target.confidence, target.valid)))]
    if isinstance(target, TwoSpaceTarget):
        columns += [('label for the contrast', list(paint_labels(target.contrast_label, palette))),
                    ('its confidence', list(paint_scores(target.contrast_confidence, target.valid)))]
    columns.append(('weight', list(paint_weights(target))))
    for i, view in enumerate(step.mixed):
        columns += [(f'strong view {i}', list(bytes_of(view.images))),
                    (f'mixed label {i}', list(paint_target(view.target, palette, fade=True))),
                    (f'weight {i}', list(paint_weights(view.target)))]
    return columns


def draw_step(step: Step, classes: Sequence[str], palette: np.ndarray, title: Sequence[str],
              max_rows: int) -> Image.Image:
    """One picture: the title, the labeled images with their ground truth, the unlabeled block, the legend.

    Args:
        step (Step): See :func:`columns_of`; also ``labels``.
        classes (Sequence[str]): Names.
        palette (ndarray): RGB uint8 [C, 3].
        title (Sequence[str]): Lines.
        max_rows (int): Images of each kind that are shown.
    """
    pairs = list(zip(bytes_of(step.batch.labeled), paint_labels(step.labels, palette), strict=True))[:max_rows]
    labeled = [(f'labeled {i}, its truth', list(pair)) for i, pair in enumerate(pairs)]
    blocks = [_block(labeled, 2), _block(columns_of(step, palette), max_rows)]
    width = max(block.width for block in blocks)
    parts = [_text(title, width), *blocks, _legend(classes, palette, width)]
    page = Image.new('RGB', (width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    return page


def _block(columns: Sequence[Column], max_rows: int) -> Image.Image:
    """Cells side by side under their names. A branch that also shows labeled images has more rows than the rest."""
    height, width = columns[0][1][0].shape[:2]
    factor = min(SIDE[1] / max(height, width), max(1, SIDE[0] / max(height, width)))
    size = (round(width * factor), round(height * factor))
    rows = min(max_rows, max(len(cells) for _, cells in columns))
    column_width = max(size[0], 130)
    page = Image.new('RGB', (2 * MARGIN + len(columns) * (column_width + GAP), MARGIN + LINE + rows * (size[1] + GAP)),
                     PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT)
    for i, (name, cells) in enumerate(columns):
        left = MARGIN + i * (column_width + GAP)
        draw.text((left, MARGIN), name, INK, font)
        for row, cell in enumerate(cells[:rows]):
            place = (left, MARGIN + LINE + row * (size[1] + GAP))
            page.paste(Image.fromarray(np.ascontiguousarray(cell)).resize(size, Image.NEAREST), place)
    return page


def _text(lines: Sequence[str], width: int) -> Image.Image:
    page = Image.new('RGB', (width, MARGIN + LINE * len(lines)), PAPER)
    for i, line in enumerate(lines):
        ImageDraw.Draw(page).text((MARGIN, MARGIN // 2 + i * LINE), line, INK, ImageFont.load_default(FONT))
    return page


def _legend(classes: Sequence[str], palette: np.ndarray, width: int) -> Image.Image:
    """Swatches of the classes, of what is no class and of padding, and the scale of the scores."""
    entries = [*((name, tuple(map(int, color))) for name, color in zip(classes, palette, strict=True)),
               ('no label', NO_LABEL), ('padding', PADDING)]
    entries += [(f'score {share:g}', tuple(map(int, cv2.applyColorMap(
        np.array([[round(255 * share)]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0, ::-1]))) for share in (0, 0.5, 1)]
    font, places, left, row = ImageFont.load_default(FONT), [], MARGIN, 0
    for name, color in entries:
        length = LINE + int(font.getlength(name)) + 14
        if left + length > width - MARGIN and left > MARGIN:
            left, row = MARGIN, row + 1
        places.append((left, row, name, color))
        left += length
    page = Image.new('RGB', (width, 2 * MARGIN + LINE * (row + 1)), PAPER)
    draw = ImageDraw.Draw(page)
    for left, row, name, color in places:
        top = MARGIN + row * LINE
        draw.rectangle((left, top + 1, left + 12, top + 13), color, INK)
        draw.text((left + LINE, top), name, INK, font)
    return page
