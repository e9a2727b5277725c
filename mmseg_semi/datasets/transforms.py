"""Transforms that mmseg lacks: a mask check, a scale relative to the image's own size, batch augments in the loader."""
from typing import Optional, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Resize

from mmseg_semi.registry import BATCH_AUGMENTS, TRANSFORMS
from mmseg_semi.structures import Target, View

from .mask_hint import cut_values, mask_place, wrong_mask


@TRANSFORMS.register_module()
class CheckSegMap(BaseTransform):
    """Refuses a mask that does not fit its image or the classes; put it right after ``LoadAnnotations``.

    Without it a wrong label ends in a device-side assert that names no file, and a mask of 16 bits or of
    fractions, which ``LoadAnnotations`` cuts to whole numbers of 8, trains on other labels without a word.

    Args:
        num_classes (int): ``C``; labels 0..C-1 are allowed.
        ignore_index (int): The one other label that is. Defaults to 255.

    Raises:
        ValueError: If a mask has another size than its image, is not 2-D or holds another label or value; names the
            files, says what kind of mask it seems to be and which command converts it.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise ValueError(f'num_classes must be positive, got {num_classes}')
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> Optional[dict]:
        """Checks ``gt_seg_map``, uint8 [H, W], and changes nothing."""
        if 'seg_map_path' not in results:  # mmseg's inferencers run the test pipeline on images alone
            return results
        seg_map, path = results['gt_seg_map'], results['seg_map_path']
        if seg_map.ndim != 2:
            raise self._wrong(results, f'is {seg_map.shape}')
        size = tuple(results['ori_shape'][:2])  # of the file: test pipelines resize the image before they load the mask
        if seg_map.shape != size:
            raise ValueError(f"mask {path} is {seg_map.shape}, its image {results['img_path']} is {size} "
                             '(height, width); if they fit, put CheckSegMap right after LoadAnnotations')
        cut = cut_values(path)
        if cut:
            raise self._wrong(results, cut)
        present = np.flatnonzero(np.bincount(seg_map.ravel()))
        wrong = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if len(wrong):
            raise self._wrong(results, f'holds labels {wrong.tolist()}')
        return results

    def _wrong(self, results: dict, found: str) -> ValueError:
        place = mask_place(results['seg_map_path'], results['img_path'], results.get('seg_map_folder', ''))
        return ValueError(wrong_mask(results['seg_map_path'], found, self.num_classes, self.ignore_index, place))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index})'


@TRANSFORMS.register_module()
class RandomScale(BaseTransform):
    """Resizes an image by a random factor of its own size, the aspect ratio kept.

    Image bilinear, mask nearest, by mmcv's ``Resize``. mmseg's ``RandomResize`` needs one base size for all images.

    Args:
        ratio_range (Sequence[float]): ``(lo, hi)``, positive. Defaults to (0.5, 2.0).
        law (str): ``'uniform'`` on [lo, hi], or ``'halves'`` as in U2PL and PCR: uniform on [lo, 1] with probability
            1/2, else uniform on [1, hi]. Defaults to 'uniform'.

    Raises:
        ValueError: If the range is not ``0 < lo <= hi``, ``law`` is unknown, or 'halves' has no 1 in its range.
    """

    def __init__(self, ratio_range: Sequence[float] = (0.5, 2.0), law: str = 'uniform') -> None:
        low, high = ratio_range
        if not 0 < low <= high:
            raise ValueError(f'ratio_range must be 0 < lo <= hi, got {tuple(ratio_range)}')
        if law not in ('uniform', 'halves'):
            raise ValueError(f"law must be 'uniform' or 'halves', got {law!r}")
        if law == 'halves' and not low <= 1 <= high:
            raise ValueError(f"law='halves' needs lo <= 1 <= hi, got ratio_range {tuple(ratio_range)}")
        self.ratio_range = (low, high)
        self.law = law

    def _factor(self) -> float:
        low, high = self.ratio_range
        if self.law == 'halves':
            low, high = (low, 1) if np.random.random() < 0.5 else (1, high)
        return np.random.uniform(low, high)

    def transform(self, results: dict) -> Optional[dict]:
        """Draws one factor and resizes ``img`` and, where there is one, ``gt_seg_map``."""
        return Resize(scale_factor=float(self._factor()))(results)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio_range={self.ratio_range}, law={self.law!r})'


@TRANSFORMS.register_module()
class StrongAugment(BaseTransform):
    """Batch augments for one image in the loader: for self-training, whose pseudo-labels come from files.

    Put it after the crop. Pixels that an augment takes out of the target become 255 in the mask. Draws follow numpy's
    global state, which mmengine seeds in each worker.

    Args:
        augments (Sequence[dict]): Batch augments that do not mix images: ``ColorJitter``, ``RandomGrayscale``,
            ``GaussianBlur``, ``Cutout``, ``PatchMask``.
    """

    def __init__(self, augments: Sequence[dict]) -> None:
        self.augments = [BATCH_AUGMENTS.build(augment) for augment in augments]

    def transform(self, results: dict) -> Optional[dict]:
        """Changes ``img``, uint8 BGR [H, W, 3], and ``gt_seg_map``, uint8 [H, W]."""
        image = torch.from_numpy(np.ascontiguousarray(results['img'][..., ::-1])).permute(2, 0, 1)[None].float() / 255
        label = torch.from_numpy(results['gt_seg_map'].astype(np.int64))[None]
        valid = label != 255
        view = View(image, Target(label=label, weight=valid.float(), confidence=valid.float(), valid=valid))
        generator = torch.Generator().manual_seed(int(np.random.randint(2**31)))
        for augment in self.augments:
            view = augment(view, generator)
        pixels = (255 * view.images[0]).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        results['img'] = np.ascontiguousarray(pixels[..., ::-1])
        mask = view.target.label.masked_fill(view.target.weight == 0, 255)[0]
        results['gt_seg_map'] = mask.numpy().astype(results['gt_seg_map'].dtype)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(augments={[type(augment).__name__ for augment in self.augments]})'
