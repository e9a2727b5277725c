"""Brings CISC-R's frozen teacher."""
from typing import Optional

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmseg_semi.models.segmentors.cisc_rectify import CISCRectify
from mmseg_semi.registry import HOOKS

from .ema_teacher_hook import check_feed


@HOOKS.register_module()
class FrozenTeacherHook(Hook):
    """Loads the teacher of a :class:`CISCRectify` at the start of training and tells the model each iteration.

    Only training loads it: the config of a trained network can be tested without the teacher's file.

    Args:
        checkpoint (str): Of the network that made the pseudo-labels, in a plan such as ``'sup:best'``.

    Raises:
        TypeError: When training starts, if the model is no :class:`CISCRectify`.
    """

    priority = 'NORMAL'

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Checks the feed and loads the teacher; student weights are on their device by now."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, CISCRectify):
            raise TypeError(f'FrozenTeacherHook needs a CISCRectify, found {type(model).__name__}; set model.type')
        check_feed(runner)
        self.model = model
        model.load_teacher(self.checkpoint)
        runner.logger.info(f'The frozen teacher is {self.checkpoint}.')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        """Tells the model seed, rank and iteration, on which alone its draws depend."""
        self.model.begin_iter(runner.iter, seed=runner.seed, rank=get_rank())
