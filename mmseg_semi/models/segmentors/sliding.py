"""Prediction in sliding windows, by the rules of the published codes."""
from typing import Iterator, List, Tuple

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmseg_semi.models.checkpoint import FittingCheckpoints
from mmseg_semi.registry import MODELS

AVERAGES, WINDOWS = ('logits', 'prob'), ('shifted', 'cut')


def window_bounds(length: int, crop: int, stride: int, windows: str) -> Iterator[Tuple[int, int]]:
    """First and past-the-end pixel of each window along one side.

    Args:
        length (int): Pixels of the image.
        crop (int): Pixels of a window; a shorter image has one window, itself.
        stride (int): Pixels between two windows.
        windows (str): ``'shifted'``: the last window moves inwards and keeps its size (mmseg, U2PL, CPS, UniMatch V2).
            ``'cut'``: there is a window at every multiple of the stride, cut at the border, even where the one before
            reaches the border already (UniMatch, AugSeg).
    """
    if windows == 'cut':
        for start in range(0, length, stride):
            yield start, min(start + crop, length)
        return
    for i in range(max(length - crop + stride - 1, 0) // stride + 1):
        end = min(i * stride + crop, length)
        yield max(end - crop, 0), end


class SlidingWindows:
    """Mixin for an ``EncoderDecoder``: two more settings of ``test_cfg`` with ``mode='slide'``.

    With ``mode='whole'`` they mean nothing, as ``crop_size`` and ``stride``, so that one option turns windows off.

    ``slide_average`` (str): What overlapping windows average: ``'logits'`` (default; mmseg, U2PL, CPS) or ``'prob'``,
    softmax probabilities (UniMatch, UniMatch V2, AugSeg). ``slide_windows`` (str): see :func:`window_bounds`; default
    ``'shifted'``.

    Raises:
        ValueError: If a setting is unknown, a window or stride is not positive, windows leave gaps, or ``'prob'`` is
            asked of a head of one channel, whose prediction is no softmax.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        cfg = self.test_cfg or {}
        for name, known in (('slide_average', AVERAGES), ('slide_windows', WINDOWS)):
            value = cfg.get(name, known[0])
            if value not in known:
                raise ValueError(f'test_cfg.{name} must be one of {known}, found {value!r}')
        if cfg.get('mode') != 'slide':
            return
        crop, stride = cfg.get('crop_size'), cfg.get('stride')
        if not crop or not stride or not all(0 < s <= c for s, c in zip(stride, crop, strict=True)):
            raise ValueError("test_cfg.mode='slide' needs crop_size=(h, w) and a stride=(h, w) of at most that, else "
                             f'pixels are left out: found crop_size {crop} and stride {stride}')
        if cfg.get('slide_average') == 'prob' and self.out_channels == 1:
            raise ValueError("test_cfg.slide_average='prob' needs a logit per class, found decode_head.out_channels=1")

    def slide_inference(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """As ``EncoderDecoder.slide_inference``, by the two settings.

        Args:
            inputs (Tensor): Images [N, 3, H, W].
            batch_img_metas (list[dict]): Meta information of the images.

        Returns:
            Tensor: [N, C, H, W]: the mean logits, or the logarithm of the mean probabilities, whose softmax they are.
        """
        (crop_h, crop_w), (stride_h, stride_w) = self.test_cfg.crop_size, self.test_cfg.stride
        prob = self.test_cfg.get('slide_average', 'logits') == 'prob'
        windows = self.test_cfg.get('slide_windows', 'shifted')
        batch, _, height, width = inputs.shape
        total = inputs.new_zeros(batch, self.out_channels, height, width)
        count = inputs.new_zeros(1, 1, height, width)
        for top, bottom in window_bounds(height, crop_h, stride_h, windows):
            for left, right in window_bounds(width, crop_w, stride_w, windows):
                window = inputs[:, :, top:bottom, left:right]
                metas = [dict(meta, img_shape=window.shape[2:]) for meta in batch_img_metas]
                logits = self.encode_decode(window, metas)
                total[:, :, top:bottom, left:right] += logits.softmax(1) if prob else logits
                count[:, :, top:bottom, left:right] += 1
        mean = total / count
        # Later steps expect logits; a probability that was rounded to zero becomes the smallest number.
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log() if prob else mean


@MODELS.register_module()
class SlidingEncoderDecoder(FittingCheckpoints, SlidingWindows, EncoderDecoder):
    """mmseg's segmentor, supervised as ever, with the settings of :class:`SlidingWindows`."""
