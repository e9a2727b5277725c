"""Says before a network is built why a method cannot train it."""
import importlib.util
from typing import List, Optional, Sequence, Tuple, Union

from mmseg.models import EncoderDecoder
from mmseg.models.backbones import BEiT
from mmseg.models.decode_heads import (
    DAHead,
    DDRHead,
    DPTHead,
    EncHead,
    IterativeDecodeHead,
    Mask2FormerHead,
    MaskFormerHead,
    PIDHead,
    SideAdapterCLIPHead,
)
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from torch import nn

from mmseg_semi.models.heads import FeatureMapDPTHead
from mmseg_semi.registry import MODELS

# mmseg's heads whose forward returns a tuple or a list in training; the mask classifiers need mmdet besides.
SEVERAL_MAPS = (DAHead, DDRHead, EncHead, IterativeDecodeHead, Mask2FormerHead, MaskFormerHead, PIDHead,
                SideAdapterCLIPHead)
# The packages of the type prefixes in our configs, on OneDL's stack and on OpenMMLab's.
_INSTALL = dict(mmpretrain='pip install onedl-mmpretrain (OneDL) or pip install mmpretrain (OpenMMLab)')


def check_network(backbone: dict,
                  decode_head: Union[dict, Sequence[dict]],
                  labeler: Optional[dict] = None,
                  data_preprocessor: Optional[dict] = None,
                  any_size: bool = False,
                  num_stages: Optional[int] = None) -> None:
    """Refuses what would fail, or go wrong silently, in the first training step.

    Args:
        backbone (dict): Config.
        decode_head (dict): Config.
        labeler (dict, optional): Config.
        data_preprocessor (dict, optional): Config; its ``size`` is the crop.
        any_size (bool): Whether the method predicts images of any size, apart from test windows.
        num_stages (int, optional): What configs of cascades set.

    Raises:
        ImportError: If a part belongs to a package that is not installed, or needs another that is not.
        ValueError: If the head is a cascade or returns more than one map of logits, if ``DPTHead`` gets no class
            tokens, or if the method, the labeler's scales or the crop show other sizes to a backbone that knows one.
    """
    if not isinstance(decode_head, dict) or num_stages is not None:
        raise ValueError(f'decode_head must be one head, found a {type(decode_head).__name__} and '
                         f'num_stages={num_stages}: cascades are not supported, since their last head needs the '
                         'prediction of the first one, which strong views and tap know nothing of; train them with '
                         'model.type=CascadeEncoderDecoder on labels only, or take a single head (docs/backbones.md)')
    for part in (backbone, decode_head):
        check_installed(part)
    check_head(_find(decode_head))
    _check_tokens(backbone, decode_head)
    _check_sizes(backbone, labeler or {}, data_preprocessor or {}, any_size)


def aux_heads(model: EncoderDecoder) -> List[nn.Module]:
    """The auxiliary heads of a segmentor, none to many."""
    if not model.with_auxiliary_head:
        return []
    return list(model.auxiliary_head) if isinstance(model.auxiliary_head, nn.ModuleList) else [model.auxiliary_head]


def named_heads(model: EncoderDecoder) -> List[Tuple[str, nn.Module]]:
    """The decode head and the auxiliary heads of a segmentor under the names of their settings."""
    return [('decode_head', model.decode_head), *((f'auxiliary_head[{i}]', h) for i, h in enumerate(aux_heads(model)))]


def check_heads(model: EncoderDecoder) -> None:
    """Checks the classes of a built segmentor, and the label that padding gets.

    That label may be a class: then padding trains it (docs/methods/pcr.md).

    Raises:
        ValueError: If there is one class only, or the label of padding is neither a class of a head nor what it
            ignores.
    """
    if model.num_classes < 2:
        raise ValueError(f'decode_head.num_classes is {model.num_classes}: pseudo-labels need at least two classes, so '
                         "make the background one of them, such as classes=('background', 'object')")
    padding = getattr(model.data_preprocessor, 'seg_pad_val', None)
    if padding is None:
        return
    for name, head in named_heads(model):
        if padding != head.ignore_index and padding not in range(head.num_classes):
            raise ValueError(f'{name}.ignore_index must be {padding}, the label of padding '
                             f'(data_preprocessor.seg_pad_val); found {head.ignore_index}: set both to the value of '
                             'ignored pixels in the masks')


def check_installed(part: dict) -> None:
    """Names the package that a part of the network needs and does not find.

    Args:
        part (dict): Config of a backbone or head.

    Raises:
        ImportError: With the command that installs it.
    """
    package = str(part.get('type')).split('.')[0]
    if part.get('type') == 'mmpretrain.TIMMBackbone' and importlib.util.find_spec('timm') is None:
        raise ImportError(f"{part['type']} needs timm, which is not installed: pip install timm")
    if package in _INSTALL and importlib.util.find_spec(package) is None:
        raise ImportError(f"{part['type']} needs {package}, which is not installed: {_INSTALL[package]}")


def _find(part: dict) -> type:
    """The class of a config; ``type(None)`` if unknown, which building it will say better."""
    kind = part.get('type')
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else type(None)


def check_head(head: type) -> None:
    """Refuses kinds of heads that do not turn one feature into one map of logits.

    Args:
        head (type): Class of the decode head.

    Raises:
        ValueError: With the reason.
    """
    name = head.__name__
    if issubclass(head, BaseCascadeDecodeHead):
        raise ValueError(f'decode_head.type={name} is the last head of a cascade and needs the prediction of a first '
                         'one: cascades are not supported; take a single head (docs/backbones.md)')
    if issubclass(head, SEVERAL_MAPS):
        raise ValueError(f'decode_head.type={name} returns several maps, which its own loss reads together, but a '
                         'pseudo-label supervises one map of logits: take a head that returns one, such as FCNHead, '
                         'UPerHead or SegformerHead (docs/backbones.md)')


def _check_tokens(backbone: dict, decode_head: dict) -> None:
    head = _find(decode_head)
    if issubclass(head, DPTHead) and not issubclass(head, FeatureMapDPTHead) and not backbone.get('output_cls_token'):
        raise ValueError(f"decode_head.type={head.__name__} reads (feature map, class token) pairs, but "
                         f"backbone.type={backbone.get('type')} is not set to output_cls_token=True: "
                         "use type='FeatureMapDPTHead'")


def _check_sizes(backbone: dict, labeler: dict, data_preprocessor: dict, any_size: bool) -> None:
    """For backbones whose position bias is as large as one image."""
    kind = _find(backbone)
    if not issubclass(kind, BEiT) and kind.__name__ != 'BEiTViT':
        return
    side = backbone.get('img_size', 224)
    other = 'take a backbone without it, such as mmpretrain.VisionTransformer (docs/backbones.md)'
    name = f'the position bias of backbone.type={kind.__name__} fits one image size, {side}'
    crop = data_preprocessor.get('size') if isinstance(data_preprocessor, dict) else None
    if crop and tuple(crop) != (tuple(side) if isinstance(side, Sequence) else (side, side)):
        raise ValueError(f'data_preprocessor.size is {tuple(crop)}, but {name}: set crop and backbone.img_size alike')
    if any_size:
        raise ValueError(f'the method predicts whole images at several scales, but {name}: {other}')
    scales = tuple(labeler.get('scales', (0.5, 1.0, 1.5)))
    if labeler.get('type') == 'MultiScaleLabeler' and scales != (1.0, ):
        raise ValueError(f'labeler: MultiScaleLabeler shows images at scales {scales}, but {name}: set '
                         f'labeler.scales=(1.0,), or {other}')
