"""The retrainings of CISC-R: pseudo-labels weighted by how far a labeled guide agrees with them."""
import copy
from typing import Dict, List, Optional, Sequence

import torch
from mmengine.runner import CheckpointLoader
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor

from mmseg_semi.models.branch import StrongBranch
from mmseg_semi.models.checkpoint import without_pretrained
from mmseg_semi.models.feature_tap import FeatureTap, last_layer
from mmseg_semi.models.guidance import Guided
from mmseg_semi.models.losses import rectified_cross_entropy
from mmseg_semi.models.losses.valid_cross_entropy import class_weight_tensor
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import GuidedBatch, Target, View

from .guided_encoder_decoder import IGNORE, GuidedEncoderDecoder
from .semi_encoder_decoder import step_generator


@MODELS.register_module()
class CISCRectify(GuidedEncoderDecoder):
    """Trains on labeled images and on pseudo-labels from files, weighted pixel by pixel.

    "Querying Labeled for Unlabeled: Cross-Image Semantic Consistency Guided Semi-Supervised Semantic Segmentation",
    L. Wu et al., TPAMI 2023, https://doi.org/10.1109/TPAMI.2022.3233584, stages 4 and 6. ``F`` are features of the
    frozen teacher, ``x_g, y_g`` the guide of ``x_u``, ``c`` the class that they share::

        S = similarity of F(x_u) to the mean of F(x_g) over [y_g = c]       Guidance.similarity
        W = 1 - |[y_u = c] - S|, 1 without a shared class                   Guidance.weight
        L_rect = mean_p W(p) CE(z(p), y_u(p))                               rectified_cross_entropy
        L = CE(x_l) + L_rect

    Labeled and unlabeled images pass the student as one batch. The teacher is loaded by :class:`FrozenTeacherHook`. It
    is no module of the model: neither the optimizer nor a checkpoint holds it, and ``train()`` leaves it in eval mode.

    Args:
        augments (Sequence[dict]): Photometric batch augments that make the strong view of ``x_u``.
        teacher_view (str): Which view of ``x_u`` the teacher sees: ``'strong'`` (published), that of the student, or
            ``'weak'``, the same pixels before the augments.
        average_ignored (bool): Whether pixels without pseudo-label count in the divisor of L_rect, as published.
        class_weight (Sequence[float], optional): Positive weight of each class in L_rect; give it where the loss of the
            labeled images has it. Published: none.
        consistency_weight (float): Factor of L_con on labeled pairs, >= 0. Published: 0. With pairs, the mean of
            CE(x_l) is over images and guides.
        **kwargs: Of :class:`GuidedEncoderDecoder`.

    Raises:
        ValueError: If an option is unknown or out of its range.
    """

    def __init__(self,
                 backbone: dict,
                 decode_head: dict,
                 neck: Optional[dict] = None,
                 augments: Sequence[dict] = (),
                 teacher_view: str = 'strong',
                 average_ignored: bool = True,
                 class_weight: Optional[Sequence[float]] = None,
                 consistency_weight: float = 0.0,
                 tap: Optional[str] = None,
                 **kwargs) -> None:
        if teacher_view not in ('strong', 'weak'):
            raise ValueError(f"CISCRectify.teacher_view must be 'strong' or 'weak', found {teacher_view!r}")
        # Copies, since mmseg edits what it is given.
        parts = copy.deepcopy(dict(backbone=backbone, decode_head=decode_head, neck=neck))
        super().__init__(backbone, decode_head, neck, consistency_weight=consistency_weight, tap=tap, **kwargs)
        self._teacher_cfg = {name: without_pretrained(part) for name, part in parts.items()}
        self._tap_path = tap
        color = {name: getattr(self.data_preprocessor, name, None) for name in ('mean', 'std')}
        self.strong = StrongBranch(augments, **color)
        self.teacher_view, self.average_ignored = teacher_view, average_ignored
        self.register_buffer('class_weight', class_weight_tensor(class_weight), persistent=False)
        if class_weight is not None and len(class_weight) != self.num_classes:
            raise ValueError(f'CISCRectify.class_weight has {len(class_weight)} weights for {self.num_classes} classes')
        self._frozen: tuple = ()  # a tuple, so that torch does not see the modules in it
        self._clock: Optional[tuple] = None

    # ---- the teacher --------------------------------------------------------------------------------------------

    @property
    def teacher(self) -> EncoderDecoder:
        """The frozen network.

        Raises:
            RuntimeError: If it is not loaded.
        """
        if not self._frozen:
            raise RuntimeError('CISCRectify has no teacher: put dict(type="FrozenTeacherHook", checkpoint=...) into '
                               'custom_hooks')
        return self._frozen[0]

    def load_teacher(self, path: str) -> None:
        """Builds the teacher from the student weights of a checkpoint.

        Args:
            path (str): Of a segmentor of the same architecture.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it lacks weights, or they have other shapes; names the file and the first of them.
        """
        with torch.random.fork_rng(devices=[]):
            teacher = EncoderDecoder(**copy.deepcopy(self._teacher_cfg))
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        found = content.get('state_dict', content)
        expected = teacher.state_dict()
        wrong = [name for name in expected if name not in found or found[name].shape != expected[name].shape]
        if wrong:
            raise ValueError(f'the teacher checkpoint {path} does not fit the model: {len(wrong)} of {len(expected)} '
                             f'tensors are missing or have another shape, such as {wrong[0]}; expected a checkpoint of '
                             'the same backbone and decode_head')
        # Device and memory layout are the student's.
        like = self.state_dict()
        teacher.load_state_dict({name: torch.empty_like(like[name]).copy_(found[name]) for name in expected},
                                assign=True)
        teacher.to(next(self.parameters()).device)  # buffers that no checkpoint holds
        self._frozen = teacher.requires_grad_(False).eval(), FeatureTap(teacher.decode_head, self._tap_path, last_layer)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> Tensor:
        """Features [N, D, h, w] of images [N, 3, H, W] in [0, 1]."""
        self.teacher.decode_head(self.teacher.extract_feat(self.data_preprocessor.normalize(images)))
        return self._frozen[1].pop()

    # ---- one training step --------------------------------------------------------------------------------------

    def begin_iter(self, iteration: int, seed: int, rank: int) -> None:
        """Tells the model where training stands; called by :class:`FrozenTeacherHook` before each iteration."""
        self._clock = (seed, rank, iteration)

    def loss(self, inputs: GuidedBatch, data_samples: List) -> Dict[str, Tensor]:
        """Calculates the losses of one step.

        Args:
            inputs (GuidedBatch): Labeled images and unlabeled ones with pseudo-label and guide, from
                :class:`GuidedSegDataPreProcessor`.
            data_samples (list[SegDataSample]): Of the labeled images.

        Returns:
            dict[str, Tensor]: ``decode.*``, ``rectified.loss_ce``, ``consistency.loss`` if it has a weight, and
            ``monitor.has_guide`` (share of images with a shared class) and ``monitor.mean_weight`` (of W over the
            pixels that have a label).

        Raises:
            TypeError: If the batch does not come from ``GuidedSegDataPreProcessor``.
            RuntimeError: If no ``FrozenTeacherHook`` runs.
            ValueError: If the batch lacks pseudo-labels or guides, or an augment moves labels.
        """
        self._check_batch(inputs)
        if self._clock is None:
            raise RuntimeError('CISCRectify needs dict(type="FrozenTeacherHook", checkpoint=...) in custom_hooks')
        if inputs.pseudo_label is None or inputs.guide_class is None:
            raise ValueError('CISCRectify trains on unlabeled images with pseudo-labels and guides, found '
                             f'pseudo-labels: {inputs.pseudo_label is not None}, guides: '
                             f'{inputs.guide_class is not None}; use a GuidedPairDataset over a PseudoLabeledDataset')
        strong = self.strong_view(inputs)
        weight = self.rectify_weight(inputs, strong)
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples])
        out, out_u = self.student_forward(torch.cat([inputs.labeled, strong])).split([len(labels), len(strong)])
        losses = self.supervised_loss(out, labels, data_samples)
        logits = resize(out_u.logits.to(torch.promote_types(out_u.logits.dtype, torch.float32)), strong.shape[2:],
                        mode='bilinear', align_corners=self.align_corners, warning=False)
        losses['rectified.loss_ce'] = rectified_cross_entropy(logits, inputs.pseudo_label, weight, self.average_ignored,
                                                              self.class_weight)
        if self.consistency_weight > 0:
            losses['consistency.loss'] = self.pair_consistency(out.tap, labels, inputs.pair_class)
        known = inputs.pseudo_label != IGNORE
        losses['monitor.has_guide'] = (inputs.guide_class >= 0).float().mean()
        losses['monitor.mean_weight'] = (weight * known).sum() / known.sum().clamp(min=1)
        return losses

    @torch.no_grad()
    def strong_view(self, inputs: GuidedBatch) -> Tensor:
        """The augmented unlabeled images, [N_u, 3, H, W]."""
        known = inputs.valid.float()
        target = Target(label=inputs.pseudo_label, weight=known, confidence=known, valid=inputs.valid)
        view = self.strong(View(inputs.weak, target), step_generator(*self._clock))
        if view.target is not target:
            raise ValueError('CISCRectify.augments move or remove labels, found '
                             f'{[type(a).__name__ for a in self.strong.augments]}; expected photometric augments')
        return view.images

    @torch.no_grad()
    def rectify_weight(self, inputs: GuidedBatch, strong: Tensor) -> Tensor:
        """W of the unlabeled images, [N_u, H, W] in [0, 1]."""
        seen = strong if self.teacher_view == 'strong' else inputs.weak
        image, guide = self.teacher_features(torch.cat([seen, inputs.guide])).chunk(2)
        return self.guidance.weight(Guided(image, inputs.pseudo_label), Guided(guide, inputs.guide_label),
                                    inputs.guide_class)
