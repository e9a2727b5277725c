"""The first network of CISC-R: supervised training on labeled pairs."""
from typing import Dict, List

import torch
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import GuidedBatch

from .guided_encoder_decoder import GuidedEncoderDecoder


@MODELS.register_module()
class CISCPair(GuidedEncoderDecoder):
    """Trains on pairs of labeled images so that the cosine of features behaves like the probability of a class.

    "Querying Labeled for Unlabeled: Cross-Image Semantic Consistency Guided Semi-Supervised Semantic Segmentation",
    L. Wu et al., TPAMI 2023, https://doi.org/10.1109/TPAMI.2022.3233584, stage 1. An image ``x_1`` and its guide
    ``x_2``, which share the class ``c``::

        L = CE(x_1) + CE(x_2) + L_con                                                loss
        L_con = BCE(S_1, [y_1 = c]) + BCE(S_2, [y_2 = c])                            Guidance.consistency
        S_1 = similarity of F(x_1) to the mean of F(x_2) over [y_2 = c], and reverse  Guidance.similarity

    Both images pass the network as one batch. Each cross-entropy has the divisor of the head's own loss, L_con that of
    :func:`consistency_loss`.

    Args:
        consistency_weight (float): Factor of L_con, >= 0. Published: 1.
        **kwargs: Of :class:`GuidedEncoderDecoder`.

    Raises:
        ValueError: See :class:`GuidedEncoderDecoder`.
    """

    def __init__(self, *args, consistency_weight: float = 1.0, **kwargs) -> None:
        super().__init__(*args, consistency_weight=consistency_weight, **kwargs)

    def loss(self, inputs: GuidedBatch, data_samples: List) -> Dict[str, Tensor]:
        """Calculates the losses of one step.

        Args:
            inputs (GuidedBatch): P labeled pairs, from :class:`GuidedSegDataPreProcessor`.
            data_samples (list[SegDataSample]): Of the P images, then of their P guides.

        Returns:
            dict[str, Tensor]: ``decode.*`` of the images, ``guide_decode.*`` of the guides, ``consistency.loss``, and
            ``monitor.has_guide``, the share of pairs with a shared class.

        Raises:
            TypeError: If the batch does not come from ``GuidedSegDataPreProcessor``.
            ValueError: If the images have no guides.
        """
        self._check_batch(inputs)
        if inputs.pair_class is None:
            raise ValueError('CISCPair trains on labeled pairs, found labeled images without guides: use a '
                             'GuidedPairDataset')
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples])
        half = len(inputs.pair_class)
        out = self.student_forward(inputs.labeled)
        images, guides = out.split([half, half])
        losses = self.supervised_loss(images, labels[:half], data_samples[:half])
        losses.update(self.supervised_loss(guides, labels[half:], data_samples[half:], 'guide_'))
        losses['consistency.loss'] = self.pair_consistency(out.tap, labels, inputs.pair_class)
        losses['monitor.has_guide'] = (inputs.pair_class >= 0).float().mean()
        return losses
