"""CISC-R in a single run: an EMA teacher labels, guides weigh its labels."""
import math
from dataclasses import replace
from typing import Dict, List, Optional, Sequence

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmseg_semi.models.feature_tap import last_layer
from mmseg_semi.models.guidance import Guidance, Guided
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import GuidedBatch, Step, View

from .guided_encoder_decoder import IGNORE, check_labels
from .semi_encoder_decoder import SemiEncoderDecoder


def present_classes(label: Tensor, counted: Tensor, num_classes: int, min_area: float) -> Tensor:
    """Classes that cover at least ``min_area`` of an image, [N, C] bool.

    Args:
        label (Tensor): [N, H, W] int64; below C where counted.
        counted (Tensor): [N, H, W] bool; other pixels have no class but are part of the whole.
        num_classes (int): ``C``.
        min_area (float): In (0, 1].
    """
    label = label.where(counted, num_classes).flatten(1)
    counts = label.new_zeros(len(label), num_classes + 1).scatter_add_(1, label, torch.ones_like(label))
    pixels = label.shape[1]
    least = math.ceil(min_area * pixels)
    least -= (least - 1) / pixels >= min_area  # the quotient is exact where the product is not
    return counts[:, :num_classes] >= least


@MODELS.register_module()
class CISCOnline(SemiEncoderDecoder):
    """CISC-R (https://doi.org/10.1109/TPAMI.2022.3233584) without stages: labels of an EMA teacher, made in each step.

    Ours, not the paper's (specification, section 10.4). ``F`` are features of the teacher, ``x_g`` the guide that
    :class:`OnlineGuidedDataset` chose by the last prediction for ``x_u``::

        y_u = label of the weak view                                       labeler
        c   drawn from the classes of y_u and of the guide's crop           shared_class
        W   = 1 - |[y_u = c] - S|, 1 without a shared class                 Guidance.weight
        L   = CE(x_l) + sum over branches CE weighted by W + lambda_c L_con  on pairs of labeled images

    W is made on the weak view and moves with the pseudo-label through the branches' augments. The labeled batch is
    images and then their guides, with one mean of CE.

    Args:
        min_area (float): Share of a crop from which on it shows a class, in (0, 1]; that of the data set's index.
        exclude (Sequence[int]): Classes never shared; those of the data set's index.
        consistency_weight (float): lambda_c, >= 0; with 0 the labeled images need no guides.
        guidance (dict, optional): Options of :class:`Guidance`.
        **kwargs: Of :class:`SemiEncoderDecoder`.

    Attributes:
        predicted_classes (Tensor): [N_u, C] uint8, 1 for the classes of the last pseudo-labels; None before.

    Raises:
        ValueError: If an option is out of its range, or a head ignores another label than 255.
    """

    uses_tap = True
    find_tap = staticmethod(last_layer)  # whatever feature of the head other methods read

    def __init__(self,
                 *args,
                 min_area: float = 0.03,
                 exclude: Sequence[int] = (),
                 consistency_weight: float = 1.0,
                 guidance: Optional[dict] = None,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < min_area <= 1:
            raise ValueError(f'CISCOnline.min_area must be in (0, 1], found {min_area}')
        if any(c not in range(self.num_classes) for c in exclude):
            raise ValueError(f'CISCOnline.exclude must hold classes in 0..{self.num_classes - 1}, found '
                             f'{list(exclude)}')
        if consistency_weight < 0:
            raise ValueError(f'CISCOnline.consistency_weight must be >= 0, found {consistency_weight}')
        check_labels(self)
        self.min_area, self.exclude = min_area, tuple(sorted(exclude))
        self.consistency_weight = consistency_weight
        self.guidance = Guidance(**(guidance or {}))
        queried = [c not in self.exclude for c in range(self.num_classes)]
        self.register_buffer('queried', torch.tensor(queried), persistent=False)
        self.predicted_classes: Optional[Tensor] = None

    # ---- slots of the step --------------------------------------------------------------------------------------

    def new_step(self, inputs: GuidedBatch, data_samples: List) -> Step:
        """As the base, for batches with guides."""
        if not isinstance(inputs, GuidedBatch):
            raise TypeError(f'CISCOnline trains on a GuidedBatch, found {type(inputs).__name__}: set '
                            "model.data_preprocessor.type='GuidedSegDataPreProcessor' and "
                            "train_dataloader.collate_fn=dict(type='semi_collate')")
        if inputs.guide is None:
            raise ValueError('CISCOnline trains on unlabeled images with guides, found '
                             f'{"no unlabeled images" if inputs.weak is None else "none"}: use a SemiDataset whose '
                             'unlabeled set is an OnlineGuidedDataset')
        if inputs.pair_class is None and self.consistency_weight > 0:
            raise ValueError(f'CISCOnline.consistency_weight={self.consistency_weight} needs labeled pairs: wrap the '
                             'labeled set in a GuidedPairDataset, with itself as labeled, or set it to 0')
        return super().new_step(inputs, data_samples)

    def teacher_views(self, step: Step) -> None:
        """Weak views and guides, in one forward."""
        images = torch.cat([step.batch.weak, step.batch.guide])
        step.out_teacher, step.out_guide = self.teacher_forward(images).split([len(images) // 2] * 2)

    @torch.no_grad()
    def shared_class(self, step: Step) -> Tensor:
        """A class of the pseudo-label that the guide shows too, [N_u] int64, -1 for none; also notes the classes of the
        pseudo-labels."""
        label, counted = step.target.label, step.target.weight > 0
        predicted = present_classes(label, counted, self.num_classes, self.min_area)
        self.predicted_classes = predicted.to(torch.uint8)
        guide = step.batch.guide_label
        shared = predicted & present_classes(guide, guide != IGNORE, self.num_classes, self.min_area) & self.queried
        draws = torch.rand(shared.shape, generator=step.generator).to(shared.device, non_blocking=True)
        return draws.masked_fill(~shared, -1).argmax(dim=1).where(shared.any(dim=1), -1)

    @torch.no_grad()
    def strong_views(self, step: Step) -> List[View]:
        """Weighs the pseudo-labels, then as the base."""
        step.guide_class = self.shared_class(step)
        step.guide_weight = self.guidance.weight(
            Guided(step.out_teacher.tap, step.target.label), Guided(step.out_guide.tap, step.batch.guide_label),
            step.guide_class)
        step.target = replace(step.target, weight=step.target.weight * step.guide_weight)
        return super().strong_views(step)

    def extra_losses(self, step: Step) -> Dict[str, Tensor]:
        """L_con of the labeled pairs."""
        if self.consistency_weight == 0:
            return {}
        one, other = (Guided(*halves) for halves in
                      zip(step.out_labeled.tap.chunk(2), step.labels.chunk(2), strict=True))
        loss = self.guidance.consistency(one, other, step.batch.pair_class)
        return {'consistency.loss': self.consistency_weight * loss}

    def monitors(self, step: Step) -> Dict[str, Tensor]:
        """Also the share of images with a guide and the mean W; ``monitor.kept`` counts pixels of any weight."""
        monitors = super().monitors(step)
        if step.target is not None:
            valid, pixels = step.target.valid, step.target.valid.sum().clamp(min=1)
            monitors['monitor.kept'] = (step.target.weight > 0).sum() / pixels
            monitors['monitor.has_guide'] = (step.guide_class >= 0).float().mean()
            monitors['monitor.mean_weight'] = (step.guide_weight * valid).sum() / pixels
        return monitors

    # ---- prediction ---------------------------------------------------------------------------------------------

    def _predict_logits(self, network: EncoderDecoder, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        logits = super()._predict_logits(network, inputs, batch_img_metas)
        (self.tap if network is self else self.teacher_tap).pop()  # predictions need no feature
        return logits

    def _forward(self, inputs: Tensor, data_samples: Optional[List] = None) -> Tensor:
        logits = super()._forward(inputs, data_samples)
        (self.teacher_tap if self._teacher_predicts else self.tap).pop()
        return logits
