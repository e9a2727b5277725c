"""What our segmentors do with a checkpoint that they load.

mmengine loads without ``strict`` and only logs what does not fit, so with a wrong class count a head would keep its
random weights. The rule here: a tensor of another shape is an error, a tensor that is missing a warning.
"""
import copy
import logging
from typing import Dict, Iterable, List, Optional

from mmengine.logging import print_log
from torch import Tensor, nn

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


def own_tensors(state_dict: Dict[str, Tensor], prefix: str, segmentor: nn.Module) -> Dict[str, Tensor]:
    """The tensors of a checkpoint that are a segmentor's.

    Args:
        state_dict (dict): Tensors of the checkpoint.
        prefix (str): Of the segmentor's names in ``state_dict``, such as ``''``.
        segmentor (nn.Module): Who loads them.

    Returns:
        dict[str, Tensor]: Names without the prefix.

    Raises:
        ValueError: If none has a name of the segmentor's, or one has another shape; names the tensors, both shapes and
            the way out.
    """
    found = {key[len(prefix):]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    expected = segmentor.state_dict()
    if found and expected.keys().isdisjoint(found):
        raise ValueError(f'the checkpoint holds nothing of this segmentor: found {listing(found)}; expected names such '
                         f'as {listing(expected)}. Weights of a backbone alone belong into '
                         "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE)")
    check_shapes(found, segmentor)
    return found


class FittingCheckpoints:
    """Mixin for a segmentor: a checkpoint that does not fit is an error (:func:`own_tensors`)."""

    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str, *args) -> None:
        own_tensors(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)


def prepare_state_dict(state_dict: Dict[str, Tensor], prefix: str, segmentor: nn.Module) -> None:
    """Makes a checkpoint fit for a segmentor with a teacher, in place, before torch loads it.

    A plain segmentor's checkpoint, one without ``teacher.*``, fills the teacher too.

    Args:
        state_dict (dict): Tensors of the checkpoint; entries of others, without ``prefix``, are left alone.
        prefix (str): Of the segmentor's names in ``state_dict``, such as ``''``.
        segmentor (nn.Module): Who loads them. While ``init_cfg`` loads the student it has no teacher, and none is
            filled.

    Raises:
        ValueError: As :func:`own_tensors`.
    """
    found, expected = own_tensors(state_dict, prefix, segmentor), segmentor.state_dict()
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


def misfits(found: Dict[str, Tensor], segmentor: nn.Module) -> List[str]:
    """Names of a checkpoint's tensors that have another shape in a segmentor.

    Args:
        found (dict): The checkpoint's.
        segmentor (nn.Module): Who is to load them. Tensors of another shape that a part of it fits while it loads, as
            ViTs of mmpretrain do with position embeddings, are in order; that part has loaded them afterwards.
    """

    def shape(tensor: Tensor) -> tuple:
        # torch itself accepts a number that an old version saved as a list of one.
        return tuple(tensor.shape) if tuple(tensor.shape) != (1, ) else ()

    others = [name for name, tensor in segmentor.state_dict().items()
              if name in found and shape(found[name]) != shape(tensor)]
    return [name for name in others if not _fits_itself(name, found[name], segmentor)]


def check_shapes(found: Dict[str, Tensor], segmentor: nn.Module) -> None:
    """Compares tensors of the same name, as :func:`misfits`, with its side effect.

    Raises:
        ValueError: If shapes differ; names the tensors and both shapes.
    """
    names = misfits(found, segmentor)
    if not names:
        return
    expected = segmentor.state_dict()
    wrong = [f'{name} {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}' for name in names]
    classes = [name for name in expected if name.endswith('conv_seg.weight') and name in found
               and len(found[name]) != len(expected[name])]
    reason = (f'It is of {len(found[classes[0]])} classes, the config of {len(expected[classes[0]])}: set num_classes '
              'of every head, or start from its backbone alone' if classes else
              'Use the config that it was trained with, or start from its backbone alone')
    raise ValueError(f'the checkpoint does not fit the config, {len(wrong)} tensors have another shape: '
                     f"{'; '.join(wrong[:SHOWN])}{'; ...' if len(wrong) > SHOWN else ''}. {reason}: load_from=None, "
                     "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='backbone.')")


def _fits_itself(name: str, tensor: Tensor, segmentor: nn.Module) -> bool:
    """Whether the part that a tensor belongs to, such as the backbone, loads it in spite of its shape; it does."""
    network = TEACHER if name.startswith(TEACHER) else ''
    part, _, rest = name[len(network):].partition('.')
    if not rest:
        return False
    try:
        segmentor.get_submodule(network + part).load_state_dict({rest: tensor}, strict=False)
    except Exception:  # torch's of another shape, or whatever a part raises on a tensor of another network
        return False
    return True


def _warn_missing(missing: List[str]) -> None:
    # Counters of BN are missing in old checkpoints; methods speak for the banks that they add.
    missing = [name for name in missing if not name.endswith('num_batches_tracked') and 'prototype' not in name]
    if missing:
        print_log(f'The checkpoint lacks {len(missing)} tensors, which keep their initial values: {listing(missing)}.',
                  'current', level=logging.WARNING)
