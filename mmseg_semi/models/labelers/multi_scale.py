"""Pseudo-labels from an ensemble of scales."""
from typing import Callable, Dict, Sequence

import torch
from mmseg.models.utils import resize
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Target


@MODELS.register_module()
class MultiScaleLabeler:
    """Hands another labeler the mean prediction over several scales of the complete image.

    With K the scales, T the teacher and x the weak view (MaskMatch, https://arxiv.org/abs/2312.08631, which fixes the
    idea; scales and averaging are ours, after ST++)::

        P = mean over k in K of up(softmax(T(resize(x, k))))

    The mean of probabilities is less sure than a single prediction: at the same threshold fewer pixels are kept, how
    many fewer is logged (spec section 5). A scale k costs k^2 teacher forwards; the one at scale 1 happens even if K
    leaves it out.

    Args:
        labeler (dict): Labeler that gets log P in place of logits.
        scales (Sequence[float]): K, positive.
        flip (bool): Whether every scale is also predicted mirrored. Defaults to False.
        divisor (int): Scaled heights and widths are rounded to a multiple of it (14 for patch-14 ViTs). Defaults to 1.
        every_n (int): Only every so many iterations are labeled by the ensemble, the others by scale 1 alone. Defaults
            to 1, all of them.
        warm_iters (int): The first so many iterations of the semi-supervised phase are labeled by scale 1 alone.
            Defaults to 0.

    Attributes:
        monitors (dict[str, Tensor]): For the log, of the last batch: ``monitor.kept_single``, the share of its valid
            pixels that the inner labeler keeps of the prediction at scale 1 alone.

    Raises:
        ValueError: If ``scales`` is empty, a scale, ``divisor`` or ``every_n`` is not positive, or ``warm_iters`` is
            negative.
    """

    def __init__(self,
                 labeler: dict,
                 scales: Sequence[float] = (0.5, 1.0, 1.5),
                 flip: bool = False,
                 divisor: int = 1,
                 every_n: int = 1,
                 warm_iters: int = 0) -> None:
        if not scales or min(scales) <= 0 or divisor < 1:
            raise ValueError(f'MultiScaleLabeler: scales must be positive numbers and divisor at least 1, found '
                             f'scales={list(scales)}, divisor={divisor}')
        if every_n < 1 or warm_iters < 0:
            raise ValueError('MultiScaleLabeler: every_n must be at least 1 and warm_iters at least 0, found '
                             f'every_n={every_n}, warm_iters={warm_iters}')
        self.labeler = MODELS.build(labeler)
        self.scales, self.flip, self.divisor = tuple(scales), flip, divisor
        self.every_n, self.warm_iters = every_n, warm_iters
        self.monitors: Dict[str, Tensor] = {}

    def __call__(self,
                 logits: Tensor,
                 valid: Tensor,
                 predict: Callable[[tuple, bool], Tensor],
                 iteration: int = 0) -> Target:
        """Labels a batch.

        Args:
            logits (Tensor): [N, C, H, W] of the teacher on the weak view, at image size.
            valid (Tensor): [N, H, W] bool, false on padding.
            predict (Callable): ``predict(size, flip)`` gives the teacher's logits [N, C, *size] of the same images
                resized to ``size``, mirrored before and back after with ``flip``.
            iteration (int): Of the semi-supervised phase, counted from 0.

        Returns:
            Target: The inner labeler's. With the one scale 1 and no flip exactly what it says without this wrapper.
        """
        target = self.labeler(logits, valid, predict, iteration)
        self.monitors = {'monitor.kept_single': target.weight.sum() / valid.sum().clamp(min=1)}
        if self._alone(iteration):
            return target
        del target  # a soft one is as large as the logits
        mean = self._mean(logits, predict)
        return self.labeler(mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), valid, predict, iteration)

    def _alone(self, iteration: int) -> bool:
        """Whether scale 1 labels without the others."""
        due = iteration >= self.warm_iters and iteration % self.every_n == 0
        return not due or (self.scales == (1.0, ) and not self.flip)

    def _mean(self, logits: Tensor, predict: Callable[[tuple, bool], Tensor]) -> Tensor:
        """P, [N, C, H, W] float32."""
        size = tuple(logits.shape[2:])
        total = torch.zeros_like(logits, dtype=torch.float32)
        for scale in self.scales:
            scaled = tuple(max(1, round(side * scale / self.divisor)) * self.divisor for side in size)
            for flip in (False, True)[:1 + self.flip]:
                one = logits if scaled == size and not flip else predict(scaled, flip)
                probability = one.float().softmax(dim=1)
                total += resize(probability, size=size, mode='bilinear', align_corners=False)
        return total / (len(self.scales) * (1 + self.flip))
