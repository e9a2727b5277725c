"""Reads a feature inside a decode head without rewriting the head."""
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, Tuple

from torch import Tensor, nn

from mmseg_semi.models.network_check import check_head


def classifier_path(head: nn.Module) -> str:
    """The head's own ``tap_path`` if it names one, else :func:`last_layer`."""
    return getattr(head, 'tap_path', None) or last_layer(head)


def last_layer(head: nn.Module) -> str:
    """Names the module of a decode head that turns its last feature into logits.

    Args:
        head (nn.Module): The decode head.

    Returns:
        str: ``conv_seg``, the last layer of nearly every mmseg head, or ``linear_pred``, SegFormer's; else the last
        convolution with one output per class.

    Raises:
        ValueError: If there is none of these, as in heads whose last layer is no convolution.
    """
    modules = dict(head.named_modules())
    for path in ('conv_seg', 'linear_pred'):
        if isinstance(modules.get(path), nn.Conv2d):
            return path
    classes = getattr(head, 'out_channels', None)
    found = [path for path, m in modules.items() if isinstance(m, nn.Conv2d) and m.out_channels == classes]
    if not found:
        raise ValueError(f'tap: {type(head).__name__} has no conv_seg and no other convolution with {classes} outputs, '
                         'so its last feature must be named: set model.tap to the path of a convolution in it; its '
                         f'direct children are {[name for name, _ in head.named_children()]}')
    return found[-1]


class FeatureTap:
    """Catches the input of one module of a decode head during the head's forward.

    Args:
        head (nn.Module): The decode head.
        path (str, optional): Module path inside the head; the *input* of that module is the feature. Defaults to what
            ``find`` finds.
        find (Callable): :func:`classifier_path` or :func:`last_layer`.

    Attributes:
        channels (int): Channels of the feature, read from the convolution that the module starts with.

    Raises:
        ValueError: If the head has no convolution, or no such module, or that does not start with a convolution, or
            :func:`check_head` refuses the head.
    """

    def __init__(self, head: nn.Module, path: Optional[str] = None,
                 find: Callable[[nn.Module], str] = classifier_path) -> None:
        check_head(type(head))
        modules = dict(head.named_modules())
        if not any(isinstance(module, nn.Conv2d) for module in modules.values()):
            raise ValueError('the method reads the feature in front of the classifier, a convolution, but '
                             f'decode_head.type={type(head).__name__} has no convolution: the method cannot train such '
                             'a head; take another head, or a method that reads logits only, such as FixMatch-EMA or '
                             'MaskMatch (docs/backbones.md)')
        path = path or find(head)
        if path not in modules:
            raise ValueError(f'tap: {type(head).__name__} has no module {path!r}; '
                             f'its direct children are {[name for name, _ in head.named_children()]}')
        first = next(m for m in modules[path].modules() if not list(m.children()))
        if not isinstance(first, nn.Conv2d):
            raise ValueError(f'tap: module {path!r} of {type(head).__name__} must start with a Conv2d, found '
                             f'{type(first).__name__}')
        self.channels = first.in_channels
        self._caught: Optional[Tensor] = None
        self._reader: Optional[Callable[[Tensor], Tuple[Tensor, Tensor]]] = None
        modules[path].register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: tuple) -> Optional[tuple]:
        if self._reader is None:
            self._caught = inputs[0]
            return None
        feature, self._caught = self._reader(inputs[0])
        return (feature, *inputs[1:])

    @contextmanager
    def reading(self, reader: Callable[[Tensor], Tuple[Tensor, Tensor]]) -> Iterator[None]:
        """Within the block, catches ``reader(feature)[1]`` and lets ``reader(feature)[0]`` flow on in the head."""
        self._reader = reader
        try:
            yield
        finally:
            self._reader = None

    def pop(self) -> Tensor:
        """Returns what the last forward caught and forgets it, so that no graph outlives its step.

        Raises:
            RuntimeError: If the head has not run since the last call.
        """
        if self._caught is None:
            raise RuntimeError('the decode head has not run since the tap was last read')
        caught, self._caught = self._caught, None
        return caught
