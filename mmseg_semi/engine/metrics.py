"""Evaluates the student beside the teacher."""
from typing import Sequence

from mmseg.evaluation import IoUMetric

from mmseg_semi.registry import METRICS


@METRICS.register_module()
class StudentIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` on ``student_sem_seg``, which ``model.eval_with='both'`` adds to the predictions.

    Args:
        prefix (str): Of the logged keys. Defaults to ``'student'``.
        **kwargs: Of ``IoUMetric``.
    """

    def __init__(self, *args, prefix: str = 'student', **kwargs) -> None:
        super().__init__(*args, prefix=prefix, **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collects one batch.

        Raises:
            ValueError: If the predictions hold no student.
        """
        if any('student_sem_seg' not in sample for sample in data_samples):
            raise ValueError("StudentIoUMetric needs model.eval_with='both'; the predictions hold no student_sem_seg")
        super().process(data_batch, [{**sample, 'pred_sem_seg': sample['student_sem_seg']} for sample in data_samples])
