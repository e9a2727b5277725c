"""The DeepLabV3+ decoder of U2PL and PCR."""
from typing import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmseg_semi.registry import MODELS


@MODELS.register_module()
class DeepLabV3PlusHead(ASPPHead):
    """ASPP, a wide low-level branch and a three-layer classifier (PCR spec section 2, ``dec_deeplabv3_plus``).

    Other than mmseg's ``DepthwiseSeparableASPPHead``: all convolutions are dense, the low-level branch is as wide as
    the ASPP, their concatenation is ``[low-level, ASPP]``, and dropout follows each hidden layer. The input of
    ``classifier`` is PCR's 512-channel prototype feature.

    Args:
        c1_in_channels (int): Channels of the first input, stride 4.
        c1_channels (int): Channels of the low-level branch. Defaults to 256.
        **kwargs: Of mmseg's ``ASPPHead``; ``dropout_ratio`` also applies to the hidden layers.
    """

    #: What a :class:`FeatureTap` reads unless told otherwise.
    tap_path = 'classifier'

    def __init__(self, c1_in_channels: int, c1_channels: int = 256, **kwargs) -> None:
        super().__init__(**kwargs)
        layer = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        dropout = nn.Dropout2d(self.dropout_ratio) if self.dropout_ratio > 0 else nn.Identity()
        self.hidden_dropout = dropout
        # The 1x1 has a bias in spite of its norm: so have the published weights.
        self.c1_bottleneck = ConvModule(c1_in_channels, c1_channels, 1, bias=True, **layer)
        self.classifier = nn.Sequential(
            ConvModule(c1_channels + self.channels, self.channels, 3, padding=1, **layer), dropout,
            ConvModule(self.channels, self.channels, 3, padding=1, **layer))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps backbone features, the first at stride 4, to logits [N, C, h, w] at stride 4."""
        x = self._transform_inputs(inputs)
        pooled = resize(self.image_pool(x), size=x.shape[2:], mode='bilinear', align_corners=self.align_corners)
        x = self.hidden_dropout(self.bottleneck(torch.cat([pooled, *self.aspp_modules(x)], dim=1)))
        low = self.c1_bottleneck(inputs[0])
        x = resize(x, size=low.shape[2:], mode='bilinear', align_corners=self.align_corners)
        return self.cls_seg(self.classifier(torch.cat([low, x], dim=1)))
