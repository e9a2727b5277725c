"""PCR: prototype-based consistency regularization."""
from typing import Dict, List, Optional, Tuple

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmseg_semi.models.labelers import require_pixel_reliability
from mmseg_semi.models.points import PointReader, stratified_pixels
from mmseg_semi.models.segmentors.semi_encoder_decoder import SemiEncoderDecoder
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Step


@MODELS.register_module()
class PCR(SemiEncoderDecoder):
    """A linear and a prototype classifier must both reproduce the teacher's labels.

    "Semi-supervised Semantic Segmentation with Prototype-based Consistency Regularization", H.-M. Xu, L. Liu, Q. Bian,
    Z. Yang, NeurIPS 2022, https://arxiv.org/abs/2210.04388. With ``S`` the picked pixels (one per grid cell), ``T`` the
    temperature and ``f`` the tapped feature::

        z_c^P(f) = max_k cos(f, p_ck) / T                        prototype_scores
        L = L_l^lin + w_p L_l^pro + lambda_u L_u^lin + w_p L_u^pro
            L_l^lin   supervised_loss (OHEM in the configs)      L_u^lin  unsupervised_loss
            L_l^pro, L_u^pro   mean CE of z^P over labeled and over confident unlabeled pixels of S: extra_losses
        p_ck <- alpha p_ck + (1 - alpha) mean of the pixels of S assigned to it          PrototypeHead.update

    Args:
        prototype_head (dict): :class:`PrototypeHead`; ``num_classes`` and ``channels`` default to the decode head's and
            the tap's.
        predict_with (str): ``'linear'`` (published) or ``'prototype'``.
        tap (str, optional): Module path in the decode head whose input is the prototype feature. Defaults to what
            :class:`FeatureTap` finds: the published one in :class:`DeepLabV3PlusHead`, ``conv_seg`` elsewhere.
        **kwargs: Of :class:`SemiEncoderDecoder`.

    Raises:
        ValueError: If ``predict_with`` is neither of the two, or the labeler's ``reliability`` is ``'batch_ratio'``.
    """

    # Pixels scored at once when the prototype head predicts; bounds memory.
    _CHUNK = 16384

    uses_tap = True
    one_size = True  # labeled and strong images are read at the same points

    def __init__(self, *args, prototype_head: dict, predict_with: str = 'linear', **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if predict_with not in ('linear', 'prototype'):
            raise ValueError(f"predict_with must be 'linear' or 'prototype', found {predict_with!r}")
        require_pixel_reliability(self.labeler, 'PCR', 'its prototypes learn from every pixel of positive weight')
        self.predict_with = predict_with
        defaults = dict(type='PrototypeHead', num_classes=self.num_classes, channels=self.tap.channels)
        self.prototype_head = MODELS.build({**defaults, **prototype_head})

    @property
    def needed_hook(self) -> Optional[str]:
        """The hook that makes the first prototypes, unless a checkpoint has brought some."""
        return None if self.prototype_head.initialized else 'PrototypeInitHook'

    def student_views(self, step: Step) -> None:
        """Also reads the feature at the picked pixels: ``Output.tap`` is [N, P, D] float32 (spec section 4 item 5)."""
        size = step.labels.shape[1:]
        rows, columns = stratified_pixels(*size, self.prototype_head.grid_size, step.generator)
        device = step.labels.device
        step.points = (rows.to(device, non_blocking=True), columns.to(device, non_blocking=True))
        with self.tap.reading(PointReader(rows, columns, tuple(size), self.align_corners)):
            super().student_views(step)

    def extra_losses(self, step: Step) -> Dict[str, Tensor]:
        """L_l^pro, L_u^pro and the prototype update (spec sections 4b, 4d, 5)."""
        ignore = self.decode_head.ignore_index
        groups = [(step.out_labeled.tap, *self._at_points(step, step.labels, step.labels != ignore))]
        groups += [(out.tap, *self._at_points(step, view.target.label, view.target.weight > 0))
                   for out, view in zip(step.out_mixed, step.mixed, strict=True)]
        features = torch.cat([tap.flatten(0, 1) for tap, _, _ in groups])  # [M, D]
        label = torch.cat([label for _, label, _ in groups])
        keep = torch.cat([keep for _, _, keep in groups])
        scores, nearest = self.prototype_head(features)
        is_labeled = torch.arange(len(label), device=label.device) < len(groups[0][1])
        losses = {
            'proto_labeled.loss_ce': self.prototype_head.loss(scores, label, keep & is_labeled),
            'proto_unlabeled.loss_ce': self.prototype_head.loss(scores, label, keep & ~is_labeled)
        }
        losses.update(self.prototype_head.update(features, label, nearest, keep))
        return losses

    @staticmethod
    def _at_points(step: Step, label: Tensor, keep: Tensor) -> Tuple[Tensor, Tensor]:
        rows, columns = step.points
        return label[:, rows, columns].flatten(), keep[:, rows, columns].flatten()

    def _predict_logits(self, network: EncoderDecoder, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        logits = super()._predict_logits(network, inputs, batch_img_metas)
        feature = (self.tap if network is self else self.teacher_tap).pop()
        if self.predict_with == 'linear':
            return logits
        if not self.prototype_head.initialized:
            raise RuntimeError("predict_with='prototype', but the prototypes are not initialized: load a checkpoint "
                               "of PCR training, or predict with 'linear'")
        return self._prototype_logits(feature, tuple(inputs.shape[2:]))

    def _forward(self, inputs: Tensor, data_samples: Optional[List] = None) -> Tensor:
        logits = super()._forward(inputs, data_samples)
        (self.teacher_tap if self._teacher_predicts else self.tap).pop()  # nobody reads it: do not keep its graph
        return logits

    def _prototype_logits(self, feature: Tensor, size: Tuple[int, int]) -> Tensor:
        """Scores every pixel, [N, C, H, W]: the feature is resized, not the scores (max and norm are non-linear)."""
        pixels = torch.arange(size[0] * size[1])
        scores = []
        for chunk in pixels.split(self._CHUNK):
            reader = PointReader(chunk // size[1], chunk % size[1], size, self.align_corners)
            points = reader.read(feature)  # [N, P, D]
            scores.append(self.prototype_head(points.flatten(0, 1))[0].unflatten(0, points.shape[:2]))
        return torch.cat(scores, dim=1).transpose(1, 2).unflatten(2, size)
