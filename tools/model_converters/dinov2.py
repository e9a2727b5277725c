"""Writes the public DINOv2 weights as mmpretrain's VisionTransformer and our configs expect them.

    python tools/model_converters/dinov2.py configs/swap/pcr_dinov2_small_dpt.py dinov2_vits14_pretrain.pth

The files (S, B, L; without registers) are those of https://github.com/facebookresearch/dinov2, Apache-2.0:
https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth, the same with `vitb14` for B.
"""
import re
from typing import Dict, List, Tuple

from torch import Tensor, nn
from weights_cli import main

# Public name -> mmpretrain's. Layer scales are parameters of attention and FFN there.
RENAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^norm\.', 'ln1.'),
    (r'^blocks\.(\d+)\.norm([12])\.', r'layers.\1.ln\2.'),
    (r'^blocks\.(\d+)\.attn\.', r'layers.\1.attn.'),
    (r'^blocks\.(\d+)\.ls1\.gamma$', r'layers.\1.attn.gamma1.weight'),
    (r'^blocks\.(\d+)\.ls2\.gamma$', r'layers.\1.ffn.gamma2.weight'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
)
# Only the pretraining masks patches.
LEFT_OUT = ('mask_token', )


def convert(source: Dict[str, Tensor], backbone: nn.Module) -> Tuple[Dict[str, Tensor], List[str]]:
    """Renames the tensors of the public file; an unknown name stays and is refused later."""
    weights = {}
    for name, tensor in source.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if name not in LEFT_OUT:
            weights[name] = tensor
    return weights, [name for name in source if name in LEFT_OUT]


if __name__ == '__main__':
    main(__doc__, convert)
