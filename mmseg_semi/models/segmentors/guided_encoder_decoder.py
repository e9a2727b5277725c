"""What the segmentors of CISC-R's off-line stages have in common."""
from typing import Dict, List, Optional

from mmseg.models import EncoderDecoder
from mmseg.utils import add_prefix
from torch import Tensor

from mmseg_semi.models.checkpoint import FittingCheckpoints
from mmseg_semi.models.feature_tap import FeatureTap, last_layer
from mmseg_semi.models.guidance import Guidance, Guided
from mmseg_semi.models.losses import head_loss
from mmseg_semi.models.network_check import aux_heads, check_heads, check_network, named_heads
from mmseg_semi.structures import GuidedBatch, Output

from .sliding import SlidingWindows

IGNORE = 255


def check_labels(model: EncoderDecoder) -> None:
    """Refuses heads whose labels are not those of CISC-R's losses.

    Raises:
        ValueError: If there is one class only, or a head ignores another label than padding has, which is 255, or has
            not one output per class.
    """
    check_heads(model)
    for name, head in named_heads(model):
        if head.out_channels != head.num_classes:
            raise ValueError(f'{name}.out_channels is {head.out_channels} for {head.num_classes} classes: CISC-R needs '
                             'one output per class, so leave out_channels unset')


class GuidedEncoderDecoder(FittingCheckpoints, SlidingWindows, EncoderDecoder):
    """An ``EncoderDecoder`` that trains on a :class:`GuidedBatch` and reads the input of its classifier.

    Its state dict is that of the plain ``EncoderDecoder``.

    Args:
        backbone (dict): Of ``EncoderDecoder``.
        decode_head (dict): Of ``EncoderDecoder``.
        consistency_weight (float): Factor of L_con, >= 0.
        guidance (dict, optional): Options of :class:`Guidance`.
        tap (str, optional): See :class:`FeatureTap`. Defaults to the input of the last layer, as published.
        num_stages (int, optional): Left over from a cascade's config, which is refused with its reason.
        **kwargs: Of ``EncoderDecoder``.

    Raises:
        ValueError: If an option is out of its range, a head ignores another label than 255, or :func:`check_network`
            refuses the network.
    """

    def __init__(self,
                 backbone: dict,
                 decode_head: dict,
                 *args,
                 consistency_weight: float,
                 guidance: Optional[dict] = None,
                 tap: Optional[str] = None,
                 num_stages: Optional[int] = None,
                 **kwargs) -> None:
        # Anchors and masks come from whole images at several scales.
        check_network(backbone, decode_head, any_size=True, num_stages=num_stages)
        super().__init__(backbone, decode_head, *args, **kwargs)
        if consistency_weight < 0:
            raise ValueError(f'{type(self).__name__}.consistency_weight must be >= 0, found {consistency_weight}')
        check_labels(self)
        self.consistency_weight = consistency_weight
        self.guidance = Guidance(**(guidance or {}))
        self.tap = FeatureTap(self.decode_head, tap, last_layer)

    def _check_batch(self, inputs: GuidedBatch) -> None:
        if not isinstance(inputs, GuidedBatch):
            raise TypeError(f'{type(self).__name__} trains on a GuidedBatch, found {type(inputs).__name__}: set '
                            "model.data_preprocessor.type='GuidedSegDataPreProcessor' and "
                            "train_dataloader.collate_fn=dict(type='semi_collate')")
        if inputs.pair_class is None and self.consistency_weight > 0:
            raise ValueError(f'{type(self).__name__}.consistency_weight={self.consistency_weight} needs labeled pairs, '
                             'found labeled images without guides: wrap the labeled set in a GuidedPairDataset, with '
                             'itself as labeled, or set consistency_weight=0')

    def student_forward(self, images: Tensor) -> Output:
        """Runs the network on images [N, 3, H, W] in [0, 1]."""
        features = self.extract_feat(self.data_preprocessor.normalize(images))
        logits = self.decode_head(features)
        return Output(logits, self.tap.pop(), tuple(head(features) for head in aux_heads(self)))

    def supervised_loss(self, out: Output, labels: Tensor, data_samples: List, prefix: str = '') -> Dict[str, Tensor]:
        """The heads' own losses on labeled images, auxiliary heads included."""
        losses = add_prefix(head_loss(self.decode_head, out.logits, labels, data_samples), f'{prefix}decode')
        heads = aux_heads(self)
        for i, (head, logits) in enumerate(zip(heads, out.aux_logits, strict=True)):
            name = f'aux_{i}' if len(heads) > 1 else 'aux'
            losses.update(add_prefix(head_loss(head, logits, labels, data_samples), prefix + name))
        return losses

    def pair_consistency(self, features: Tensor, labels: Tensor, shared: Tensor) -> Tensor:
        """Weighted L_con of P labeled pairs.

        Args:
            features (Tensor): [2 P, D, h, w], of the images and then of their guides.
            labels (Tensor): [2 P, H, W] int64, 255 = ignore.
            shared (Tensor): [P] int64, class of each pair, -1 for none.
        """
        one, other = (Guided(*halves) for halves in zip(features.chunk(2), labels.chunk(2), strict=True))
        return self.consistency_weight * self.guidance.consistency(one, other, shared)

    def encode_decode(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """As ``EncoderDecoder.encode_decode``."""
        logits = super().encode_decode(inputs, batch_img_metas)
        self.tap.pop()  # predictions need no feature
        return logits

    def _forward(self, inputs: Tensor, data_samples: Optional[List] = None) -> Tensor:
        logits = super()._forward(inputs, data_samples)
        self.tap.pop()
        return logits
