"""Decides when and how strongly the teacher moves."""
from typing import Optional, Sequence

from mmengine.dist import all_reduce_params, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmseg_semi.datasets import LabeledUnlabeledSampler, ReplaySampler
from mmseg_semi.engine.metrics import StudentIoUMetric
from mmseg_semi.models.batch_norm import statistics_of_ranks
from mmseg_semi.models.data_preprocessor import SemiSegDataPreProcessor
from mmseg_semi.models.ema import EMA, ema_decay
from mmseg_semi.models.segmentors.semi_encoder_decoder import SemiEncoderDecoder
from mmseg_semi.registry import HOOKS


def unwrap(runner: Runner) -> SemiEncoderDecoder:
    """The runner's segmentor, out of its DDP wrapper.

    Raises:
        TypeError: If it is not a :class:`SemiEncoderDecoder`.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, SemiEncoderDecoder):
        raise TypeError(f'the semi-supervised hooks need a SemiEncoderDecoder, found {type(model).__name__}; '
                        'set model.type in the config')
    return model


def check_counts(counts: Sequence[int], batch_size: int) -> None:
    """Compares the images of a step that sampler and loader state.

    Raises:
        ValueError: If they disagree.
    """
    if sum(counts) != batch_size:
        raise ValueError(f'train_dataloader.batch_size is {batch_size}, but sampler.counts={counts} sum to '
                         f'{sum(counts)}: change both together')


def check_feed(runner: Runner) -> None:
    """Compares the settings of the feed that a config states twice.

    Raises:
        TypeError: If the sampler is not a :class:`LabeledUnlabeledSampler`.
        ValueError: If its counts disagree with the batch size, or its length with the loop type.
    """
    loader, sampler = runner.train_dataloader, runner.train_dataloader.sampler
    if isinstance(sampler, ReplaySampler):
        sampler = sampler.sampler
    if not isinstance(sampler, LabeledUnlabeledSampler):
        raise TypeError('train_dataloader.sampler must be a LabeledUnlabeledSampler, found '
                        f'{type(sampler).__name__}')
    check_counts(sampler.counts, loader.batch_size)
    by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
    if sampler.infinite != by_iter:
        raise ValueError(f'train_cfg uses {type(runner.train_loop).__name__}, but sampler.infinite={sampler.infinite}: '
                         'iteration loops need infinite=True, epoch loops infinite=False')


def check_hooks(runner: Runner, model: SemiEncoderDecoder) -> None:
    """Looks for the hook that the method needs besides.

    Raises:
        ValueError: If it does not run.
    """
    needed = model.needed_hook
    if needed and not any(isinstance(hook, HOOKS.get(needed)) for hook in runner.hooks):
        raise ValueError(f'{type(model).__name__} needs a {needed}, found none among the hooks of the run: add '
                         f"dict(type='{needed}') to custom_hooks (the list of a child config replaces that of its "
                         'base)')


@HOOKS.register_module()
class EMATeacherHook(Hook):
    """Moves the teacher after every optimizer step: ``teacher <- d teacher + (1 - d) student``.

    ``d = min(1 - 1 / (s + 1), decay)`` with ``s`` the number of updates in the semi-supervised phase. Before that phase
    d is 0, so the teacher is the student: it starts the phase as an exact copy, and a checkpoint or a validation in the
    labeled-only phase shows the student. ``s`` is saved in the checkpoint; a checkpoint that brings a teacher of its
    own keeps it.

    Args:
        decay (float): Upper bound of d, in [0, 1). Its memory is about ``1 / (1 - decay)`` steps: scale it with the
            length of the run. Defaults to 0.99.
        buffers (str): What happens to BN statistics: ``'average'`` as the weights, ``'copy'`` the student's, or
            ``'own'``: the teacher's forwards move them, which takes a model with a ``teacher_bn`` other than
            ``'running'``. Defaults to ``'average'``.

    Raises:
        ValueError: If ``decay`` is outside [0, 1).
    """

    priority = 'NORMAL'
    _KEY = 'ema_teacher'

    def __init__(self, decay: float = 0.99, buffers: str = 'average') -> None:
        if not 0 <= decay < 1:
            raise ValueError(f'EMATeacherHook.decay must be in [0, 1), found {decay}')
        self.decay, self.buffers = decay, buffers
        self.updates = 0
        self._scores_checked = False

    def before_train(self, runner: Runner) -> None:
        """Checks the feed and pairs the tensors, which are on their device by now."""
        self.model = unwrap(runner)
        check_feed(runner)
        check_hooks(runner, self.model)
        if not isinstance(self.model.data_preprocessor, SemiSegDataPreProcessor):
            raise TypeError(f'model.data_preprocessor is a {type(self.model.data_preprocessor).__name__}, which does '
                            "not tell labeled from unlabeled images: set its type to 'SemiSegDataPreProcessor'")
        if self.model.start_iter >= runner.max_iters:
            raise ValueError(f'model.start_iter={self.model.start_iter}, but training ends after {runner.max_iters} '
                             'iterations: the teacher would never label')
        if (self.buffers == 'own') != (self.model.teacher_bn != 'running'):
            raise ValueError(f'EMATeacherHook.buffers={self.buffers!r} does not go with '
                             f"model.teacher_bn={self.model.teacher_bn!r}: a teacher with BN statistics of its own "
                             "needs buffers='own' and teacher_bn='forward' or 'batch', or neither")
        self.model.begin_train(runner.max_iters)
        self.ema = EMA(self.model.teacher, self.model, self.buffers)
        self.statistics = [] if get_world_size() == 1 else None
        state = f'continues after {self.updates} updates' if self.updates else 'starts as a copy of the student'
        runner.logger.info(f'The teacher {state}.')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        """Tells the model seed, rank and iteration, on which alone its draws depend."""
        self.model.begin_iter(runner.iter, seed=runner.seed, rank=get_rank())

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Moves the teacher if the optimizer moved the student (it does not while gradients accumulate).

        Before that, BN statistics that each rank has taken of its own images become their mean over the ranks: else
        every rank had another teacher, of which the checkpoint holds one.
        """
        if self.statistics is None:  # known from the first step on, in which the layers are as they train
            self.statistics = statistics_of_ranks(self.model, teacher=self.model.teacher_bn != 'running')
        if self.statistics:
            all_reduce_params(self.statistics, op='mean')
        if not runner.optim_wrapper.should_update():
            return
        self.ema.update(ema_decay(self.updates, self.decay))
        if self.model.unsup_active:
            self.updates += 1

    def before_val(self, runner: Runner) -> None:
        """Warns, at the first validation, if the student predicts for nobody."""
        if self._scores_checked:
            return
        self._scores_checked = True
        metrics = getattr(runner.val_loop.evaluator, 'metrics', [])
        if unwrap(runner).eval_with == 'both' and not any(isinstance(metric, StudentIoUMetric) for metric in metrics):
            runner.logger.warning(
                "model.eval_with='both' lets teacher and student predict in every validation, but nothing scores the "
                "student: add dict(type='StudentIoUMetric', iou_metrics=['mIoU']) to val_evaluator (TeacherBehindHook "
                "needs it, too), or set model.eval_with='teacher', which takes half the time of a validation.")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Saves the number of updates."""
        checkpoint[self._KEY] = {'updates': self.updates}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restores the number of updates; a teacher without one counts as settled."""
        if any(key.startswith('teacher.') for key in checkpoint.get('state_dict', checkpoint)):
            settled = round(1 / (1 - self.decay))
            self.updates = checkpoint.get(self._KEY, {}).get('updates', settled)
