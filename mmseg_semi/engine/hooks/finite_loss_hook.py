"""Stops a training that has diverged."""
from typing import Optional

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training on all ranks when the loss of one is NaN or infinite.

    A teacher averages its student, so that a diverged student is lost for good while the run goes on to its end. Reads
    the loss, one device sync, every ``interval`` iterations, at the end of each epoch of an epoch loop, and before each
    checkpoint of ``CheckpointHook``.

    Args:
        interval (int): Iterations, at least 1.

    Raises:
        ValueError: If ``interval`` is below 1.
        FloatingPointError: In training, if the loss is not finite; names iteration and terms.
    """

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'FiniteLossHook.interval must be at least 1, found {interval}')
        self.intervals = [interval]

    def before_train(self, runner: Runner) -> None:
        """Looks up when checkpoints are saved."""
        self.intervals += [hook.interval for hook in runner.hooks
                           if isinstance(hook, CheckpointHook) and not hook.by_epoch]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Reads the losses that the step returned."""
        due = any(self.every_n_train_iters(runner, interval) for interval in self.intervals)
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            due |= self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not due and not self.is_last_train_iter(runner):
            return
        wrong = (~outputs['loss'].isfinite()).float()
        all_reduce(wrong)  # one rank that leaves alone would let the others wait
        if not wrong:
            return
        terms = [f'{name}={value.item():.4g}' for name, value in outputs.items()
                 if torch.is_tensor(value) and value.numel() == 1 and not value.isfinite()]
        raise FloatingPointError(
            f'the loss is not finite at iteration {runner.iter + 1}: {", ".join(terms) or "on another rank"}. The '
            f'newest checkpoint in {runner.work_dir} may be spoiled, too. Train anew (--work-dir DIR), with or without '
            'load_from of one before it, with a lower optim_wrapper.optimizer.lr, with optim_wrapper.clip_grad or '
            'without --amp; resuming would bring the old rate back')
