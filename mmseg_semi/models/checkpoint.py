"""What our segmentors do with a checkpoint that they load.

mmengine loads without ``strict`` and only logs what does not fit, so with a wrong class count a head would keep its
random weights. The rule here: a tensor of another shape is an error, a tensor that is missing a warning.
"""
import copy
import logging
from typing import Dict, Iterable, List, Optional

from mmengine.logging import print_log
from torch import Tensor

TEACHER = 'teacher.'
SHOWN = 6  # names in a message


def without_pretrained(cfg: Optional[dict]) -> Optional[dict]:
    """A copy of a part's config without anything that loads weights."""
    cfg = copy.deepcopy(cfg)
    if cfg is not None:
        cfg.pop('init_cfg', None)
        if 'pretrained' in cfg:
            cfg['pretrained'] = False if isinstance(cfg['pretrained'], bool) else None
    return cfg


def listing(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def own_tensors(state_dict: Dict[str, Tensor], prefix: str, expected: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The tensors of a checkpoint that are a segmentor's.

    Args:
        state_dict (dict): Tensors of the checkpoint.
        prefix (str): Of the segmentor's names in ``state_dict``, such as ``''``.
        expected (dict): The segmentor's own ``state_dict()``, names without the prefix.

    Returns:
        dict[str, Tensor]: Names without the prefix.

    Raises:
        ValueError: If none has a name of the segmentor's, or one has another shape; names the tensors, both shapes and
            the way out.
    """
    found = {key[len(prefix):]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    if found and expected.keys().isdisjoint(found):
        raise ValueError(f'the checkpoint holds nothing of this segmentor: found {listing(found)}; expected names such '
                         f'as {listing(expected)}. Weights of a backbone alone belong into '
                         "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE)")
    check_shapes(found, expected)
    return found


class FittingCheckpoints:
    """Mixin for a segmentor: a checkpoint that does not fit is an error (:func:`own_tensors`)."""

    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str, *args) -> None:
        own_tensors(state_dict, prefix, self.state_dict())
        super()._load_from_state_dict(state_dict, prefix, *args)


def prepare_state_dict(state_dict: Dict[str, Tensor], prefix: str, expected: Dict[str, Tensor]) -> None:
    """Makes a checkpoint fit for a segmentor with a teacher, in place, before torch loads it.

    A plain segmentor's checkpoint, one without ``teacher.*``, fills the teacher too.

    Args:
        state_dict (dict): Tensors of the checkpoint; entries of others, without ``prefix``, are left alone.
        prefix (str): Of the segmentor's names in ``state_dict``, such as ``''``.
        expected (dict): The segmentor's own ``state_dict()``, names without the prefix. While ``init_cfg`` loads the
            student it holds no teacher, and none is filled.

    Raises:
        ValueError: As :func:`own_tensors`.
    """
    found = own_tensors(state_dict, prefix, expected)
    if not found:
        return
    has_teacher = any(name.startswith(TEACHER) for name in found)
    student = [name for name in expected if not name.startswith(TEACHER)]
    _warn_missing([name for name in expected if name not in found] if has_teacher else
                  [name for name in student if name not in found])
    twins = [name[len(TEACHER):] for name in expected if name.startswith(TEACHER)]
    if twins and not has_teacher:
        filling = [name for name in twins if name in found]
        state_dict.update({f'{prefix}{TEACHER}{name}': found[name] for name in filling})
        print_log(f'The checkpoint holds no teacher: {len(filling)} tensors of the student fill it.', 'current')


def check_shapes(found: Dict[str, Tensor], expected: Dict[str, Tensor]) -> None:
    """Compares tensors of the same name.

    Args:
        found (dict): The checkpoint's.
        expected (dict): The segmentor's.

    Raises:
        ValueError: If shapes differ; names the tensors and both shapes.
    """

    def shape(tensor: Tensor) -> tuple:
        # torch itself accepts a number that an old version saved as a list of one.
        return tuple(tensor.shape) if tuple(tensor.shape) != (1, ) else ()

    wrong = [f'{name} {tuple(found[name].shape)}, expected {tuple(tensor.shape)}'
             for name, tensor in expected.items() if name in found and shape(found[name]) != shape(tensor)]
    if not wrong:
        return
    classes = [name for name in expected if name.endswith('conv_seg.weight') and name in found
               and len(found[name]) != len(expected[name])]
    reason = (f'It is of {len(found[classes[0]])} classes, the config of {len(expected[classes[0]])}: set num_classes '
              'of every head, or start from its backbone alone' if classes else
              'Use the config that it was trained with, or start from its backbone alone')
    raise ValueError(f'the checkpoint does not fit the config, {len(wrong)} tensors have another shape: '
                     f"{'; '.join(wrong[:SHOWN])}{'; ...' if len(wrong) > SHOWN else ''}. {reason}: load_from=None, "
                     "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='backbone.')")


def _warn_missing(missing: List[str]) -> None:
    # Counters of BN are missing in old checkpoints; methods speak for the banks that they add.
    missing = [name for name in missing if not name.endswith('num_batches_tracked') and 'prototype' not in name]
    if missing:
        print_log(f'The checkpoint lacks {len(missing)} tensors, which keep their initial values: {listing(missing)}.',
                  'current', level=logging.WARNING)
