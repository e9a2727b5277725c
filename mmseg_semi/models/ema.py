"""Exponential moving average of a network: the arithmetic, apart from any schedule of hooks."""
from typing import List

import torch
from torch import Tensor, nn


def ema_decay(updates: int, cap: float) -> float:
    """Decay of the next teacher update, ``min(1 - 1 / (updates + 1), cap)`` (U2PL, PCR, UniMatch V2, AugSeg).

    The first update (``updates == 0``) has decay 0, a plain copy; then 1/2, 2/3, ... up to the cap.

    Args:
        updates (int): Teacher updates done so far, at least 0.
        cap (float): The decay of the long run, in [0, 1).

    Returns:
        float: The decay, in [0, cap].

    Raises:
        ValueError: If an argument is out of its range.
    """
    if updates < 0:
        raise ValueError(f'updates must be at least 0, got {updates}')
    if not 0 <= cap < 1:
        raise ValueError(f'the EMA decay must be in [0, 1), got {cap}')
    return min(1 - 1 / (updates + 1), cap)


class EMA:
    """Moves a teacher towards its student, ``teacher <- decay * teacher + (1 - decay) * student``.

    Tensors are paired by name once, here; an update is a few multi-tensor kernels, without host sync or loop. The
    student may own more names than the teacher (auxiliary heads, prototype banks, even the teacher itself).

    The lists hold the tensors themselves, so build this **after** the model is on its device and in its data type
    (a hook does it in ``before_train``): ``module.to()`` replaces buffers. Loading a checkpoint keeps them.

    Args:
        teacher (nn.Module): The network that is averaged; the only one that is written.
        student (nn.Module): The network that is trained, not wrapped in DDP.
        buffers (str): What happens to floating buffers (BN statistics): ``'average'`` treats them like parameters,
            ``'copy'`` takes the student's, ``'own'`` leaves them to the teacher's own forwards, except that a decay of
            0, a copy, copies them too. Integer buffers (``num_batches_tracked``) are always copied.

    Raises:
        ValueError: If ``buffers`` is unknown, or a tensor of the teacher has no counterpart of the same shape and data
            type in the student; the message lists all such tensors.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, buffers: str = 'average') -> None:
        if buffers not in ('copy', 'average', 'own'):
            raise ValueError(f"buffers must be 'copy', 'average' or 'own', got {buffers!r}")
        self._averaged: List[Tensor] = []
        self._average_of: List[Tensor] = []
        self._copied: List[Tensor] = []
        self._copy_of: List[Tensor] = []
        self._own: List[Tensor] = []
        self._own_of: List[Tensor] = []

        parameters = dict(teacher.named_parameters())
        sources = dict(student.named_parameters(remove_duplicate=False))
        sources.update(student.named_buffers(remove_duplicate=False))
        problems = []
        for name, tensor in {**parameters, **dict(teacher.named_buffers())}.items():
            source = sources.get(name)
            if source is None:
                problems.append(f'{name}: teacher {_describe(tensor)}, student has none')
            elif (source.shape, source.dtype) != (tensor.shape, tensor.dtype):
                problems.append(f'{name}: teacher {_describe(tensor)}, student {_describe(source)}')
            elif tensor.is_floating_point() and (name in parameters or buffers == 'average'):
                self._averaged.append(tensor)
                self._average_of.append(source)
            elif tensor.is_floating_point() and buffers == 'own':
                self._own.append(tensor)
                self._own_of.append(source)
            else:
                self._copied.append(tensor)
                self._copy_of.append(source)
        if problems:
            raise ValueError('teacher and student do not fit:\n  ' + '\n  '.join(problems))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Updates the teacher in place.

        Args:
            decay (float): Share of the old teacher, in [0, 1). Exactly 0 makes the teacher a bitwise copy, whatever it
                held before.

        Raises:
            ValueError: If ``decay`` is out of its range.
        """
        if not 0 <= decay < 1:
            raise ValueError(f'the EMA decay must be in [0, 1), got {decay}')
        _copy(self._copied, self._copy_of)
        if decay == 0:
            # A lerp of weight 1 subtracts and adds the old value: rounding, and NaN if that was not finite.
            _copy(self._averaged, self._average_of)
            _copy(self._own, self._own_of)
        elif self._averaged:
            torch._foreach_lerp_(self._averaged, self._average_of, 1 - decay)


def _copy(targets: List[Tensor], sources: List[Tensor]) -> None:
    # Older foreach kernels refuse empty lists.
    if targets:
        torch._foreach_copy_(targets, sources)


def _describe(tensor: Tensor) -> str:
    return f'{list(tensor.shape)} {tensor.dtype}'
