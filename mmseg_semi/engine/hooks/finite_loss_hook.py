"""Stops a training that has diverged."""
from typing import Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training when the loss is NaN or infinite, before a checkpoint of that iteration is written.

    A teacher averages its student, so that a diverged student is lost for good and the run goes on to its end. Reads
    the loss, one device sync, every ``interval`` iterations.

    Args:
        interval (int): Iterations, at least 1; the checkpoint interval should be a multiple of it.

    Raises:
        ValueError: If ``interval`` is below 1.
        FloatingPointError: In training, if the loss is not finite; names iteration and terms.
    """

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'FiniteLossHook.interval must be at least 1, found {interval}')
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Reads the losses that the step returned."""
        if not self.every_n_train_iters(runner, self.interval) or outputs['loss'].isfinite():
            return
        terms = [f'{name}={value.item():.4g}' for name, value in outputs.items()
                 if torch.is_tensor(value) and value.numel() == 1 and not value.isfinite()]
        raise FloatingPointError(
            f'the loss is not finite at iteration {runner.iter + 1}: {", ".join(terms)}. Earlier checkpoints in '
            f'{runner.work_dir} may be sound; resume from one with a lower optim_wrapper.optimizer.lr, with '
            'optim_wrapper.clip_grad, or without --amp')
