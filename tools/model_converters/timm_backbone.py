"""Writes a timm model's weights as mmpretrain's TIMMBackbone and our configs expect them.

    python tools/model_converters/timm_backbone.py configs/swap/pcr_lite0_sep_aspp.py model.safetensors

The file is that of the config's `model_name`, as https://huggingface.co/timm has them.
"""
from typing import Dict, List, Tuple

from torch import Tensor, nn
from weights_cli import main


def convert(source: Dict[str, Tensor], backbone: nn.Module) -> Tuple[Dict[str, Tensor], List[str]]:
    """Finds each tensor's place in the feature extractor, which flattens some names (``stages.0`` to ``stages_0``).

    Raises:
        ValueError: If the config's backbone is no ``TIMMBackbone``.
    """
    if type(backbone).__name__ != 'TIMMBackbone':
        raise ValueError(f"expected a config with backbone.type='mmpretrain.TIMMBackbone', found "
                         f'{type(backbone).__name__}')
    places = {name.replace('_', '.'): name for name in backbone.state_dict()}
    weights, left_out = {}, []
    for name, tensor in source.items():
        place = places.get(f'timm.model.{name}'.replace('_', '.'))
        if place is None and name.startswith(CLASSIFIER):
            left_out.append(name)
        else:
            weights[place or name] = tensor
    return weights, left_out


# Behind the last feature map, in timm's CNNs.
CLASSIFIER = ('classifier.', 'fc.', 'head.', 'conv_head.', 'bn2.', 'norm_head.')

if __name__ == '__main__':
    main(__doc__, convert)
