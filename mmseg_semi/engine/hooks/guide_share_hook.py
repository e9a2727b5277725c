"""Warns when hardly any image has a guide."""
from typing import Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class GuideShareHook(Hook):
    """Warns when few images share a class with their guide: CISC-R then is plain self-training.

    Args:
        interval (int): Iterations between two looks, > 0. Each look is one device sync. Defaults to 500.
        floor (float): Mean share of images with a guide below which it warns. Defaults to 0.2.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(self, interval: int = 500, floor: float = 0.2) -> None:
        if interval < 1:
            raise ValueError(f'GuideShareHook.interval must be >= 1, found {interval}')
        self.interval, self.floor = interval, floor
        self._sum, self._steps = 0, 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Sums ``monitor.has_guide`` on the device; looks at it every ``interval`` steps."""
        if 'monitor.has_guide' not in outputs:
            return
        self._sum, self._steps = self._sum + outputs['monitor.has_guide'], self._steps + 1
        if self._steps < self.interval:
            return
        share = float(self._sum) / self._steps
        self._sum, self._steps = 0, 0
        if share < self.floor:
            runner.logger.warning(
                f'Only {share:.1%} of the images had a guide over the last {self.interval} iterations. Lower min_area '
                'if the classes are thin (the class index tells the coverage of each), or see whether the '
                'pseudo-labels hold anything but excluded classes.')
