"""DPT on the plain feature maps of a vision transformer."""
from typing import Sequence

from mmseg.models.decode_heads import DPTHead
from torch import Tensor

from mmseg_semi.registry import MODELS


@MODELS.register_module()
class FeatureMapDPTHead(DPTHead):
    """mmseg's ``DPTHead`` for backbones that return feature maps without class tokens, such as mmpretrain's.

    mmseg's head reads each input as a pair (feature map, class token): a plain map of a batch of two is taken for such
    a pair and fails deep inside, any other batch fails an assertion without words.

    Args:
        **kwargs: Of mmseg's ``DPTHead``; ``readout_type`` must be ``'ignore'``, its default.

    Raises:
        ValueError: If ``readout_type`` asks for the class token.
    """

    def __init__(self, **kwargs) -> None:
        readout = kwargs.get('readout_type', 'ignore')
        if readout != 'ignore':
            raise ValueError(f"FeatureMapDPTHead: readout_type must be 'ignore', found {readout!r}: feature maps come "
                             "without class token; for one use DPTHead on mmseg's VisionTransformer with "
                             'output_cls_token=True')
        super().__init__(**kwargs)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps four feature maps [N, D, h, w] of one size to logits [N, C, 8h, 8w], h and w rounded up to even ones."""
        return super().forward([(features, None) for features in inputs])
