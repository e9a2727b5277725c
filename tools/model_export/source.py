"""Reads a config and its checkpoint, and takes one network out of them."""
import copy
import pickle
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_semi.engine.cpu import SYNC_BN
from mmseg_semi.models.checkpoint import TEACHER, check_shapes, listing, without_pretrained
from mmseg_semi.models.segmentors import SemiEncoderDecoder
from mmseg_semi.registry import MODELS


class ExportError(ValueError):
    """What the user can mend, or why something cannot be exported."""


class Source(NamedTuple):
    """One network, and where it comes from.

    Attributes:
        cfg: The config as it was read.
        name: ``'teacher'``, ``'student'``, or ``'model'`` for a supervised segmentor.
        model_cfg: Config of a plain ``EncoderDecoder`` that is this network, without auxiliary heads; its head may
            still be one of mmseg_semi.
        network: That model with its weights, in eval mode on the CPU.
        meta: ``meta`` of the checkpoint.
        is_random: Whether it predicts with random numbers.
    """
    cfg: Config
    name: str
    model_cfg: dict
    network: EncoderDecoder
    meta: dict
    is_random: bool


#: Of the largest logit. Two networks of the same weights may round differently: their tensors lie elsewhere in memory.
ROUNDING = 1e-5


def rounding(found: Tensor, expected: Tensor) -> Optional[float]:
    """The largest difference of two networks' logits, or None if it is more than rounding."""
    difference = (found - expected).abs().max()
    return difference.item() if difference <= ROUNDING * expected.abs().max() else None


def first_line(error: Exception) -> str:
    """What an exception says, with the kind of somebody else's, without which a mere ``'3'`` means nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ': '.join(([] if isinstance(error, ExportError) else [type(error).__name__]) + lines[:1])[:200]


def own_images(network: EncoderDecoder, batch: int = 2) -> Tensor:
    """:func:`test_images` that a network takes: of the size that its preprocessor pads to, if there is one."""
    size = (getattr(network.data_preprocessor, 'test_cfg', None) or {}).get('size')
    return test_images(channels_of(network), batch, tuple(size or (96, 128)))


def test_images(channels: int, batch: int, size: Tuple[int, int]) -> Tensor:
    """[batch, channels, H, W] uint8, the same ones at every call."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(256, (batch, channels, *size), generator=generator, dtype=torch.uint8)


def whole_logits(model: EncoderDecoder, images: Tensor, seed: Optional[int] = 0) -> Tensor:
    """The segmentor's own logits [N, C, H, W], in one window, of images as the loader delivers them."""
    samples = [SegDataSample() for _ in images]
    inputs = model.data_preprocessor(dict(inputs=list(images), data_samples=samples), False)['inputs']
    shape = tuple(inputs.shape[2:])
    metas = [dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)] * len(inputs)
    if seed is not None:
        torch.manual_seed(seed)  # heads that draw random numbers draw the same ones
    with torch.no_grad():
        return model.encode_decode(inputs, metas)


def load(config: str, checkpoint: str, network: Optional[str], cfg_options: Optional[dict] = None) -> Source:
    """Reads a trained network.

    Args:
        config (str): Path of a config of a ``SemiEncoderDecoder`` or an ``EncoderDecoder``.
        checkpoint (str): Path of its checkpoint.
        network (str, optional): ``'teacher'`` or ``'student'``. Defaults to the one that ``model.eval_with`` names.
        cfg_options (dict, optional): Settings that override the config.

    Raises:
        FileNotFoundError: If a file is missing.
        ExportError: If the checkpoint lacks the network, or the network alone does not predict what the model does.
    """
    for path, what in ((config, 'config'), (checkpoint, 'checkpoint')):
        if not Path(path).is_file():
            raise FileNotFoundError(f'no {what} {path}; expected the path of a file')
    try:
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(cfg_options or {})
    except (SyntaxError, KeyError, AttributeError, NameError, RuntimeError) as error:  # of a wrong line in a config
        raise ExportError(f'{config} cannot be read: {error}') from error
    if not isinstance(cfg.get('model'), dict):
        raise ExportError(f'{config} has no model: expected a config to train with')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return take(cfg, config, checkpoint, network)


def take(cfg: Config, config: str, checkpoint: str, network: Optional[str]) -> Source:
    """:func:`load` with a config that has been read; ``config`` is its name in messages."""
    model = _build(config, dict(copy.deepcopy(cfg.model.to_dict()), test_cfg=dict(mode='whole')))
    loaded, meta = _load_weights(model, checkpoint)
    name = _choose(model, loaded, network, checkpoint)
    prefix = TEACHER if name == 'teacher' else ''
    model_cfg = network_cfg(cfg.model.to_dict())
    single = _build(config, dict(copy.deepcopy(model_cfg), test_cfg=dict(mode='whole')))
    wanted = list(single.state_dict())
    missing = [key for key in wanted if prefix + key not in loaded and not key.endswith('num_batches_tracked')]
    if missing:
        raise ExportError(f'{checkpoint} lacks {len(missing)} tensors of the {name}: {listing(missing)}; expected a '
                          f'checkpoint that was trained with {config}')
    everything = model.state_dict()
    single.load_state_dict({key: everything[prefix + key] for key in wanted})
    _compare(model, single, name)
    return Source(cfg, name, model_cfg, single, meta, _is_random(single))


def network_cfg(model: dict) -> dict:
    """Config of a plain ``EncoderDecoder`` of the same network, made for prediction.

    Args:
        model (dict): Config of a model; a ``SemiSegDataPreProcessor`` becomes mmseg's.

    Returns:
        dict: Nothing in it loads weights, and SyncBN is BN, which predicts the same.

    Raises:
        ExportError: If the preprocessor has a setting that mmseg's lacks.
    """
    cfg = dict(type='EncoderDecoder', data_preprocessor=_preprocessor_cfg(model.get('data_preprocessor')))
    for part in ('backbone', 'neck', 'decode_head'):
        if model.get(part) is not None:
            cfg[part] = without_pretrained(model[part])
    return _plain_norm(dict(cfg, train_cfg=dict(), test_cfg=copy.deepcopy(model.get('test_cfg') or dict(mode='whole'))))


def _preprocessor_cfg(cfg: Optional[dict]) -> Optional[dict]:
    if cfg is None or cfg.get('type') not in ('SemiSegDataPreProcessor', 'GuidedSegDataPreProcessor'):
        return copy.deepcopy(cfg)
    if len(cfg['mean']) not in (1, 3):
        return copy.deepcopy(cfg)  # OneDL's takes one or three bands; a graph has none of it
    stock = ('type', 'mean', 'std', 'size', 'size_divisor', 'pad_val', 'bgr_to_rgb', 'seg_pad_val', 'test_cfg')
    unknown = [key for key in cfg if key not in stock]
    if unknown:
        raise ExportError(f"model.data_preprocessor sets {', '.join(unknown)}, which mmseg's SegDataPreProcessor lacks")
    # The defaults that differ from mmseg's are spelled out.
    plain = {'bgr_to_rgb': True, **copy.deepcopy(cfg), 'type': 'SegDataPreProcessor'}
    if plain.get('size'):
        plain.update(size=tuple(plain['size']), size_divisor=None)
    else:
        plain.update(size=None, size_divisor=plain.get('size_divisor') or 1)
    return plain


def _plain_norm(node: Any) -> Any:
    """The same config with BN for SyncBN."""
    if isinstance(node, (list, tuple)):
        return type(node)(map(_plain_norm, node))
    if not isinstance(node, dict):
        return node
    node = {key: _plain_norm(value) for key, value in node.items()}
    return dict(node, type='BN') if node.get('type') in SYNC_BN else node


def _build(config: str, model_cfg: dict) -> EncoderDecoder:
    try:
        model = MODELS.build(_plain_norm(model_cfg))
    except (KeyError, AssertionError) as error:  # mmengine's for unknown types, mmseg's for wrong values
        raise ExportError(f'{config}: the model cannot be built: {error}') from error
    plain = isinstance(model, EncoderDecoder) and not isinstance(model.decode_head, torch.nn.ModuleList)
    if not plain:
        raise ExportError(f'{config}: model.type is {model_cfg.get("type")}; expected an EncoderDecoder or a '
                          'SemiEncoderDecoder with one decode head')
    return model.eval()


def _load_weights(model: EncoderDecoder, checkpoint: str) -> Tuple[Dict[str, Tensor], dict]:
    try:
        content = load_checkpoint(model, checkpoint, map_location='cpu')
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f'{checkpoint} cannot be read as a checkpoint ({reason})') from error
    except ValueError as error:
        raise ExportError(f'{checkpoint}: {error}') from error
    state = content.get('state_dict', content)
    try:
        check_shapes({name.removeprefix('module.'): tensor for name, tensor in state.items()}, model)
    except ValueError as error:  # mmseg's own segmentors load what fits and leave the rest random
        raise ExportError(f'{checkpoint}: {error}') from error
    return state, content.get('meta') or {}


def _choose(model: EncoderDecoder, loaded: Dict[str, Tensor], network: Optional[str], checkpoint: str) -> str:
    """Which network is meant; makes it the predicting one."""
    if not isinstance(model, SemiEncoderDecoder):
        if network == 'teacher':
            raise ExportError(f'--network teacher: {type(model).__name__} has no teacher; leave the option out')
        return 'model'
    name = network or ('student' if model.eval_with == 'student' else 'teacher')
    if name == 'teacher' and not any(key.startswith(TEACHER) for key in loaded):
        raise ExportError(f'{checkpoint} holds no teacher (no tensor {TEACHER}*); take --network student')
    model.eval_with = name
    return name


def _compare(model: EncoderDecoder, single: EncoderDecoder, name: str) -> None:
    """Whether the network alone predicts what the model does."""
    images = own_images(single)
    try:
        same = rounding(whole_logits(single, images), whole_logits(model, images)) is not None
    except Exception as error:  # a network raises whatever its parts do
        raise ExportError(f'the {name} cannot predict: {first_line(error)}') from error
    if not same:
        raise ExportError(f'{type(model).__name__} does not predict with its {name} alone, so no plain network can do '
                          "the same (PCR: predict_with='prototype' needs the prototypes; export 'linear' by "
                          '--cfg-options model.predict_with=linear)')


def channels_of(network: EncoderDecoder) -> int:
    """Channels of the images that a network takes: those of its first convolution."""
    first = next(module for module in network.backbone.modules() if isinstance(module, torch.nn.Conv2d))
    return first.in_channels


def _is_random(network: EncoderDecoder) -> bool:
    images = own_images(network, 1)
    return not torch.equal(whole_logits(network, images), whole_logits(network, images, seed=None))


def class_names(source: Source) -> List[str]:
    """Names of the classes, as far as the checkpoint knows them."""
    return list((source.meta.get('dataset_meta') or {}).get('classes') or ())
