"""Warns when the teacher stays behind its student."""
from typing import Dict, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.engine.hooks.ema_teacher_hook import EMATeacherHook, unwrap
from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class TeacherBehindHook(Hook):
    """Warns, once, when validations in a row find the student better than the teacher, which labels for it.

    It compares the scores of ``val_evaluator=[IoUMetric, StudentIoUMetric]``, which needs ``model.eval_with='both'``;
    without a student's score it does nothing. Validations before the teacher's memory is full, ``1 / (1 - decay)``
    updates after ``model.start_iter``, do not count.

    Args:
        margin (float): The student counts as better from this difference on, in points of mIoU, at least 0. Defaults
            to 1.
        patience (int): Validations in a row, at least 1. Defaults to 3.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, margin: float = 1.0, patience: int = 3) -> None:
        if margin < 0:
            raise ValueError(f'TeacherBehindHook.margin must be >= 0, found {margin}')
        if patience < 1:
            raise ValueError(f'TeacherBehindHook.patience must be >= 1, found {patience}')
        self.margin, self.patience = margin, patience
        self._behind = 0

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Compares the two scores of one validation."""
        teacher, student = ((metrics or {}).get(key) for key in ('mIoU', 'student/mIoU'))
        if teacher is None or student is None or not self._warm(runner):
            return
        self._behind = self._behind + 1 if student - teacher >= self.margin else 0
        if self._behind != self.patience:  # counting on, it warns only once
            return
        runner.logger.warning(
            f'The student has been at least {self.margin:g} points of mIoU above the teacher in the last '
            f'{self.patience} validations ({student:.2f} against {teacher:.2f}), so the labels are worse than they '
            "could be. Lower EMATeacherHook.decay (the teacher's memory is 1 / (1 - decay) steps), try another "
            "EMATeacherHook.buffers ('average' or 'copy') if the student's BN statistics move fast, or predict with "
            'the student: model.eval_with=student.')

    @staticmethod
    def _warm(runner: Runner) -> bool:
        """Whether the teacher's memory is full."""
        hook = next((hook for hook in runner.hooks if isinstance(hook, EMATeacherHook)), None)
        if hook is None or runner.iter < unwrap(runner).start_iter:
            return False
        return hook.updates >= round(1 / (1 - hook.decay))
