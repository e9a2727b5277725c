"""Cutout: a box of noise without a label."""
import torch

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import View

from .base import BatchAugment, Params, check_probability
from .cutmix import box_mask, cutmix_box


@BATCH_AUGMENTS.register_module()
class Cutout(BatchAugment):
    """Fills a box with uniform noise and takes its pixels out of the target (ST++ spec section 5).

    The box has the law ``'area_ratio'`` of :func:`cutmix_box`: area uniform in [0.02, 0.4] of the image, ratio of
    height to width uniform in [0.3, 1/0.3].

    Args:
        prob (float): Probability per image, in [0, 1].

    Raises:
        ValueError: If ``prob`` is out of range.
    """

    def __init__(self, prob: float = 0.5) -> None:
        check_probability(prob)
        self.prob = prob

    def draw(self, view: View, generator: torch.Generator) -> Params:
        """Draws ``box`` [N, 4] int64 (top, left, height, width; all 0 where not cut) and ``seed`` int of the noise."""
        size, _, height, width = view.images.shape
        gate = torch.rand(size, generator=generator) < self.prob
        boxes = torch.tensor([cutmix_box(height, width, generator, 'area_ratio') for _ in range(size)])
        return dict(box=boxes * gate[:, None], seed=int(torch.randint(2**63 - 1, (), generator=generator)))

    def apply(self, view: View, params: Params) -> View:
        """See :meth:`BatchAugment.apply`."""
        images = view.images
        mask = box_mask(params['box'].to(images.device, non_blocking=True), *images.shape[2:])
        # Drawn where the images are, as PatchMask's.
        generator = torch.Generator(images.device).manual_seed(params['seed'])
        noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return View(torch.where(mask[:, None], noise, images), view.target.restrict(~mask))
