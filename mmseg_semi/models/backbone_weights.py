"""Weights for a config's backbone: read, held against the network name by name, written whole."""
import math
from pathlib import Path
from typing import Dict, List

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_semi.files import whole
from mmseg_semi.registry import MODELS

POSITION = 'pos_embed'


def read_weights(path: Path) -> Dict[str, Tensor]:
    """Reads the tensors of a checkpoint, bare or below ``state_dict`` or ``model``; nothing else is unpickled.

    Args:
        path (Path): A file of ``torch.save`` or, by its suffix, of safetensors.

    Returns:
        dict[str, Tensor]: On the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, or the file holds no tensors under names, or more than tensors and plain values.
    """
    if path.is_dir():
        raise ValueError(f'{path} is a folder; expected the file of published weights')
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; expected the file of published weights, see --help for where '
                                'it is')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            content = load_file(path)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # pickle, zip and safetensors fail in ways of their own
        raise ValueError(f'{path} cannot be read as weights: {str(error).splitlines()[0]}') from error
    for key in ('state_dict', 'model'):
        content = content[key] if isinstance(content, dict) and isinstance(content.get(key), dict) else content
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f'{path}: expected tensors under their names, found {type(content).__name__}')
    return content


def build_backbone(cfg: ConfigDict) -> nn.Module:
    """The backbone of a model's config with random weights.

    Args:
        cfg (ConfigDict): ``model`` of a config.
    """
    return MODELS.build({**cfg.backbone, 'init_cfg': None})


def check_weights(weights: Dict[str, Tensor], backbone: nn.Module) -> List[str]:
    """Holds weights against a backbone in both directions; nothing may be left over on either side.

    The usual loader skips what does not fit and goes on with random values. Counters of BN layers may be absent, as in
    old files. A position embedding of another grid is resized by the backbone when it loads; that is told.

    Args:
        weights (dict[str, Tensor]): Under the backbone's own names.
        backbone (nn.Module): Whose values are replaced.

    Returns:
        list[str]: What happens on loading that one should know; mostly empty.

    Raises:
        ValueError: With the names if any differ, or with the shapes.
    """
    expected = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    missing = [name for name in expected if name not in weights and not name.endswith('num_batches_tracked')]
    surplus = [name for name in weights if name not in expected]
    shapes = [f'{name}: {tuple(weights[name].shape)}, expected {shape}' for name, shape in expected.items()
              if name in weights and tuple(weights[name].shape) != shape and name != POSITION]
    told = []
    for title, names in (('without weights', missing), ('without place in the backbone', surplus),
                         ('of another shape', shapes)):
        if names:
            told.append(f"{len(names)} {title} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
    if told:
        raise ValueError(f"the weights do not fit {type(backbone).__name__} of the config: {'; '.join(told)}")
    notes = []
    if POSITION in weights and tuple(weights[POSITION].shape) != expected[POSITION]:
        found, wanted = (math.isqrt(shape[1] - 1) for shape in (weights[POSITION].shape, expected[POSITION]))
        notes.append(f'position embedding of {found} x {found} patches: resized to {wanted} x {wanted} on loading')
    try:
        backbone.load_state_dict(dict(weights))  # also runs the resize of the position embedding
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'{type(backbone).__name__} of the config does not load the weights: {error}') from error
    return notes


def write_weights(weights: Dict[str, Tensor], path: Path) -> None:
    """Writes a checkpoint that ``init_cfg=dict(type='Pretrained')`` reads; it appears only when whole."""
    with whole(path) as part:
        torch.save(dict(state_dict=weights), part)
