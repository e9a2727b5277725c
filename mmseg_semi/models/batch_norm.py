"""Batch statistics without a memory."""
import contextlib
from typing import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def untracked_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, BN layers in train mode normalize by the batch as ever, but their running statistics stay as they are.

    Args:
        network (nn.Module): BN and SyncBN layers in it are affected.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
