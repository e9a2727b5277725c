"""BN layers out of their usual modes."""
import contextlib
from typing import Iterator, List, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NAMES = ('running_mean', 'running_var', 'num_batches_tracked')


class BNGroup(NamedTuple):
    """Images that are one batch for the student's BN layers, and which groups of the step they are (0: labeled)."""
    images: List[Tensor]
    places: List[int]
    update_bn: bool


@contextlib.contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, BN layers of a network in eval mode normalize by the batch and move their statistics; dropout stays off.

    Layers that the network keeps in eval mode while it trains (``norm_eval``, ``frozen_stages``) stay in it.

    Args:
        network (nn.Module): BN and SyncBN layers in it are affected.
    """
    network.train()
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    network.eval()
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


@contextlib.contextmanager
def untracked_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, BN layers in train mode normalize by the batch as ever, but their running statistics stay as they are.

    The layers write into copies meanwhile. (Without statistics at all, SyncBN fails under autocast; a momentum of 0
    would let a NaN through.) A forward that is repeated in the backward pass, activation checkpointing, runs outside.

    Args:
        network (nn.Module): BN and SyncBN layers in it are affected.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    places = [(layer, name) for name in NAMES for layer in layers]
    originals = [getattr(layer, name) for layer, name in places]
    if layers:
        for (layer, name), copy in zip(places, torch._foreach_add(originals, 0), strict=True):
            setattr(layer, name, copy)
    try:
        yield
    finally:
        for (layer, name), original in zip(places, originals, strict=True):
            setattr(layer, name, original)


def refuse_checkpointing(network: nn.Module) -> None:
    """Refuses what :func:`untracked_statistics` cannot keep away from the statistics.

    Raises:
        ValueError: If a layer repeats its forward in the backward pass.
    """
    repeated = [name for name, module in network.named_modules() if getattr(module, 'with_cp', False)]
    if repeated:
        raise ValueError('branches: update_bn=False does not go with activation checkpointing, whose repeated forward '
                         f'moves the BN statistics; set with_cp=False (found in {repeated[0]})')


def statistics_of_ranks(network: nn.Module, teacher: bool) -> List[Tensor]:
    """Running means and variances that every rank takes of its own images: of BN layers in train mode, not of SyncBN.

    Args:
        network (nn.Module): In train mode, with its teacher as ``teacher``.
        teacher (bool): Whether the same layers of the teacher take statistics, too.
    """
    layers = dict(network.named_modules())
    own = [name for name, layer in layers.items() if isinstance(layer, _BatchNorm) and layer.training
           and layer.track_running_stats and not isinstance(layer, nn.SyncBatchNorm)]
    if teacher:
        own += [f'teacher.{name}' for name in own if f'teacher.{name}' in layers]
    return [getattr(layers[name], statistic) for name in own for statistic in NAMES[:2]]
