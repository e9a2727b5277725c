"""A faster memory layout for convolutions."""
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Trains in ``torch.channels_last``, which convolutions prefer on CPUs and in half precision on GPUs.

    Changes speed only: values agree up to rounding, and checkpoints hold the same tensors. Works with every model; the
    activations follow the layout of the weights. Under DDP torch warns once that the strides of gradients and buckets
    differ.
    """

    # Before EMATeacherHook pairs the tensors.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Changes the layout after weights and checkpoints are loaded."""
        runner.model.to(memory_format=torch.channels_last)
