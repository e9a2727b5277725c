"""CSS's second branch: a dense representation beside the logits."""
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmseg_semi.registry import MODELS


@MODELS.register_module()
class RepresentationHead(BaseModule):
    """Maps a feature of the decode head to raw representations: 3x3 convolution, norm, ReLU, 1x1 (CSS spec section 2).

    Nothing is normalized here: the prototypes are means of raw vectors.

    Args:
        in_channels (int): Channels of the feature.
        channels (int): Hidden channels. Defaults to 256.
        out_channels (int): D. Defaults to 256.
        norm_cfg (dict): Norm of the hidden layer. Defaults to BN.
        init_cfg (dict, optional): As every mmengine module.
    """

    def __init__(self,
                 in_channels: int,
                 channels: int = 256,
                 out_channels: int = 256,
                 norm_cfg: dict = dict(type='BN'),  # noqa: B006 (read only; mmengine's form)
                 init_cfg: dict = None) -> None:
        super().__init__(init_cfg)
        self.hidden = ConvModule(in_channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.project = nn.Conv2d(channels, out_channels, 1)
        self.out_channels = out_channels

    def forward(self, feature: Tensor) -> Tensor:
        """Maps [N, C', h, w] to representations [N, D, h, w]."""
        return self.project(self.hidden(feature))
