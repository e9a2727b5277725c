"""Warns when the teacher labels next to nothing."""
from typing import Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class KeptShareHook(Hook):
    """Warns when the share of kept pseudo-labels stays near zero: the unlabeled images then teach nothing.

    Args:
        interval (int): Iterations between two looks, > 0. Each look is one device sync. Defaults to 500.
        floor (float): Mean kept share below which it warns. Defaults to 0.01.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(self, interval: int = 500, floor: float = 0.01) -> None:
        if interval < 1:
            raise ValueError(f'KeptShareHook.interval must be >= 1, found {interval}')
        self.interval, self.floor = interval, floor
        self._sum, self._steps = 0, 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Sums ``monitor.kept`` on the device; looks at it every ``interval`` steps."""
        if 'monitor.kept' not in outputs:
            return
        self._sum, self._steps = self._sum + outputs['monitor.kept'], self._steps + 1
        if self._steps < self.interval:
            return
        kept = float(self._sum) / self._steps
        self._sum, self._steps = 0, 0
        if kept < self.floor:
            runner.logger.warning(
                f'The teacher kept only {kept:.2%} of the unlabeled pixels over the last {self.interval} iterations. '
                'Lower labeler.threshold (in CSS mix the two predictions disagree: look at monitor.classes), raise '
                'model.start_iter so that the student is better when the teacher starts, or lower '
                'EMATeacherHook.decay if the run is short (its memory is 1 / (1 - decay) steps).')
