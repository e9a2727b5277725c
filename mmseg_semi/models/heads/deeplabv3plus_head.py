"""The DeepLabV3+ decoders of the published systems."""
from typing import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmseg_semi.registry import MODELS


@MODELS.register_module()
class DeepLabV3PlusHead(ASPPHead):
    """ASPP, a low-level branch, and a classifier on ``[low-level, ASPP]``.

    Other than mmseg's ``DepthwiseSeparableASPPHead``: all convolutions are dense, the concatenation is the other way
    round, and dropout follows each hidden layer. The defaults are U2PL's and PCR's decoder (PCR spec section 2,
    ``dec_deeplabv3_plus``); CSS's (CSS spec section 2) has ``c1_channels=48, c1_bias=False, bottleneck_kernel=1,
    num_convs=1, dropout_ratio=0``. The input of ``classifier`` is PCR's 512-channel prototype feature, and what CSS's
    representation head starts from.

    Args:
        c1_in_channels (int): Channels of the first input, stride 4.
        c1_channels (int): Channels of the low-level branch. Defaults to 256.
        c1_bias (bool): Whether its 1x1 has a bias in spite of its norm, as the published weights of U2PL.
        bottleneck_kernel (int): Size of the convolution that fuses the ASPP, odd. Defaults to 3.
        num_convs (int): 3x3 convolutions before ``conv_seg``, at least 1. Defaults to 2.
        **kwargs: Of mmseg's ``ASPPHead``; ``dropout_ratio`` also applies to the hidden layers.

    Raises:
        ValueError: If ``num_convs`` or ``bottleneck_kernel`` is out of its range.
    """

    #: What a :class:`FeatureTap` reads unless told otherwise.
    tap_path = 'classifier'

    def __init__(self,
                 c1_in_channels: int,
                 c1_channels: int = 256,
                 c1_bias: bool = True,
                 bottleneck_kernel: int = 3,
                 num_convs: int = 2,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if num_convs < 1 or bottleneck_kernel < 1 or bottleneck_kernel % 2 == 0:
            raise ValueError('DeepLabV3PlusHead: num_convs must be at least 1 and bottleneck_kernel odd, found '
                             f'num_convs={num_convs}, bottleneck_kernel={bottleneck_kernel}')
        layer = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        dropout = nn.Dropout2d(self.dropout_ratio) if self.dropout_ratio > 0 else nn.Identity()
        self.hidden_dropout = dropout
        self.c1_bottleneck = ConvModule(c1_in_channels, c1_channels, 1, bias=c1_bias, **layer)
        if bottleneck_kernel != self.bottleneck.conv.kernel_size[0]:
            self.bottleneck = ConvModule(self.bottleneck.conv.in_channels, self.channels, bottleneck_kernel,
                                         padding=bottleneck_kernel // 2, **layer)
        widths = [c1_channels + self.channels] + [self.channels] * num_convs
        layers = [ConvModule(wide, narrow, 3, padding=1, **layer)
                  for wide, narrow in zip(widths[:-1], widths[1:], strict=True)]
        # Dropout between them; cls_seg has its own behind the last.
        self.classifier = nn.Sequential(*[part for conv in layers for part in (conv, dropout)][:-1])

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps backbone features, the first at stride 4, to logits [N, C, h, w] at stride 4."""
        x = self._transform_inputs(inputs)
        pooled = resize(self.image_pool(x), size=x.shape[2:], mode='bilinear', align_corners=self.align_corners)
        x = self.hidden_dropout(self.bottleneck(torch.cat([pooled, *self.aspp_modules(x)], dim=1)))
        low = self.c1_bottleneck(inputs[0])
        x = resize(x, size=low.shape[2:], mode='bilinear', align_corners=self.align_corners)
        return self.cls_seg(self.classifier(torch.cat([low, x], dim=1)))
