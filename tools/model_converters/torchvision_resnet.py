"""Writes torchvision's ResNet weights without their classifier, checked against a config of type `ResNet`.

    python tools/model_converters/torchvision_resnet.py configs/swap/pcr_r101_torchvision_sep_aspp.py \
        resnet101-63fe2227.pth checkpoints/resnet101.pth

For machines without network: with one, `torchvision://resnet101` in the config needs no file. The stem of `ResNetV1c`
is another one (three 3x3 convolutions); these weights are refused there.
"""
from typing import Dict, List, Tuple

from torch import Tensor, nn
from weights_cli import main


def convert(source: Dict[str, Tensor], backbone: nn.Module) -> Tuple[Dict[str, Tensor], List[str]]:
    """Drops the classifier; mmseg's names are torchvision's."""
    left_out = [name for name in source if name.startswith('fc.')]
    return {name: tensor for name, tensor in source.items() if name not in left_out}, left_out


if __name__ == '__main__':
    main(__doc__, convert)
