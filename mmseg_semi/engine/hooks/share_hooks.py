"""Warn when a share that a method lives on stays near zero."""
from typing import Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.registry import HOOKS


class ShareHook(Hook):
    """Warns when the mean of a monitored share over ``interval`` iterations is below ``floor``.

    Args:
        interval (int): Iterations between two looks, > 0. Each look is one device sync.
        floor (float): Mean share below which it warns.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    #: Log key of the share; runs that do not log it are left alone.
    key: str
    #: The warning, with places for ``share`` and ``interval``.
    message: str

    def __init__(self, interval: int, floor: float) -> None:
        if interval < 1:
            raise ValueError(f'{type(self).__name__}.interval must be >= 1, found {interval}')
        self.interval, self.floor = interval, floor
        self._sum, self._steps = 0, 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Sums the share on the device; looks at it every ``interval`` steps."""
        if self.key not in outputs:
            return
        self._sum, self._steps = self._sum + outputs[self.key], self._steps + 1
        if self._steps < self.interval:
            return
        share = float(self._sum) / self._steps
        self._sum, self._steps = 0, 0
        if share < self.floor:
            runner.logger.warning(self.message.format(share=share, interval=self.interval))


@HOOKS.register_module()
class KeptShareHook(ShareHook):
    """Warns when the share of kept pseudo-labels stays near zero: the unlabeled images then teach nothing.

    Args:
        interval (int): See :class:`ShareHook`. Defaults to 500.
        floor (float): Mean kept share below which it warns. Defaults to 0.01.
    """

    key = 'monitor.kept'
    message = ('The teacher kept only {share:.2%} of the unlabeled pixels over the last {interval} iterations. '
               'Lower labeler.threshold (in CSS mix the two predictions disagree: look at monitor.classes), raise '
               'model.start_iter so that the student is better when the teacher starts, or lower '
               'EMATeacherHook.decay if the run is short (its memory is 1 / (1 - decay) steps).')

    def __init__(self, interval: int = 500, floor: float = 0.01) -> None:
        super().__init__(interval, floor)


@HOOKS.register_module()
class GuideShareHook(ShareHook):
    """Warns when few images share a class with their guide: CISC-R then is plain self-training.

    Args:
        interval (int): See :class:`ShareHook`. Defaults to 500.
        floor (float): Mean share of images with a guide below which it warns. Defaults to 0.2.
    """

    key = 'monitor.has_guide'
    message = ('Only {share:.1%} of the images had a guide over the last {interval} iterations. Lower min_area '
               'if the classes are thin (the class index tells the coverage of each), or see whether the '
               'pseudo-labels hold anything but excluded classes.')

    def __init__(self, interval: int = 500, floor: float = 0.2) -> None:
        super().__init__(interval, floor)
