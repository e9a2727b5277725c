"""CSS: logits and representations supervise together."""
import logging
import math
from dataclasses import fields, replace
from typing import Dict, List, Optional, Tuple

import torch
from mmengine.logging import print_log
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor

from mmseg_semi.models.feature_tap import FeatureTap
from mmseg_semi.models.labelers import require_pixel_reliability
from mmseg_semi.models.losses import (
    ImageWeightedCrossEntropy,
    PseudoLabelKLDivergence,
    attainable_similarity,
    collaborate,
    cosine_map,
    nearest_grid,
    prototype_info_nce,
    representation_prediction,
    softmax_similarity,
    update_prototypes,
)
from mmseg_semi.models.segmentors.semi_encoder_decoder import SemiEncoderDecoder
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Output, SemiBatch, Step, Target, TwoSpaceTarget

IGNORE = 255


@MODELS.register_module()
class CSS(SemiEncoderDecoder):
    """Two dense predictions, from the logits and from the nearest prototype of a representation, label together.

    "Space Engage: Collaborative Space Supervision for Contrastive-based Semi-Supervised Semantic Segmentation",
    C. Wang, H. Xie, Y. Yuan, C. Fu, X. Yue, ICCV 2023, https://arxiv.org/abs/2307.09755. With ``rho`` the prototypes,
    ``z`` the representations and ``J = softmax_c(cos(z, rho_c) / tau_s)``::

        y_lgt, k_lgt = argmax, max of the teacher's softmax     labeler
        y_rep, k_rep = argmax, max of the teacher's J           representation_prediction
        labels of both losses                                   collaborate ('ori', 'mix', 'cross')
        L = L_s + L_u + lambda L_c
            L_s   supervised_loss        L_u   unsupervised_loss, published: by ImageWeightedCrossEntropy
            L_c   prototype_info_nce: hard pixels against rho and pixels of other classes (extra_losses)
        rho_c <- alpha rho_c + (1 - alpha) mean of z of class c over all ranks                   update_prototypes
        lambda = exp(ramp_mult (t / ramp_iters)^2), 0 from ramp_iters on                         contrast_weight

    In the labeled-only phase (``start_iter`` > 0) L_c and the prototypes see the labeled pixels.

    Args:
        variant (str): ``'mix'``: pixels on which both predictions agree train both losses. ``'cross'``: each prediction
            labels the other's loss. ``'ori'``: the logits label both (the paper's baseline).
        representation_head (dict, optional): :class:`RepresentationHead`; ``in_channels`` defaults to the tap's,
            ``norm_cfg`` to the decode head's.
        tau_sim (float, optional): tau_s, temperature of J, > 0. Whether a threshold can be met depends on it: a message
            at the start of training tells. Defaults to 0.1 in ``'cross'``, else 0.5.
        tau_contrast (float): tau_c, temperature of L_c, > 0.
        contrast_threshold (float): delta_w: an unlabeled pixel enters L_c and the prototypes from this confidence on.
        hard_threshold (float, optional): delta_s: pixels the student is less sure of may be anchors. Defaults to 0.97
            in ``'ori'``, else 0.8.
        num_anchors (int): Q, anchors per class.
        num_negatives (int): N, negatives per anchor.
        share_negatives (bool): Whether the anchors of a class share their negatives: the same expectation, cheaper.
        prototype_momentum (float): alpha, in [0, 1).
        prototype_source (str): Whose z the prototypes average: ``'student'``, of labeled images and strong views
            (released code); ``'teacher'``, of labeled images and weak views (paper, Eq. 2), but the student's in the
            labeled-only phase.
        unseen (str): ``'mask'``: a class without prototype is never predicted; ``'zero'``: it has cosine 0 (published).
        ramp_mult (float, optional): At most 0; 0 keeps lambda at 1. Defaults to 0 in ``'ori'``, else -5.
        ramp_iters (int, optional): Length of the ramp, from ``start_iter`` on. Defaults to the rest of training.
        warmup_iters (int, optional): Iterations, from ``start_iter`` on, in which ``'cross'`` labels as ``'ori'``.
            Defaults to 10 % of training; the other variants have none.
        **kwargs: Of :class:`SemiEncoderDecoder`; ``unsup_loss`` defaults to :class:`ImageWeightedCrossEntropy`.

    Raises:
        ValueError: If an option is unknown, out of its range, or does not go with the labeler or a branch; when a
            checkpoint is loaded, if its prototypes have another shape.
    """

    uses_tap = True

    def __init__(self,
                 *args,
                 variant: str = 'mix',
                 representation_head: Optional[dict] = None,
                 unsup_loss: Optional[dict] = None,
                 tau_sim: Optional[float] = None,
                 tau_contrast: float = 0.5,
                 contrast_threshold: float = 0.7,
                 hard_threshold: Optional[float] = None,
                 num_anchors: int = 256,
                 num_negatives: int = 512,
                 share_negatives: bool = False,
                 prototype_momentum: float = 0.99,
                 prototype_source: str = 'student',
                 unseen: str = 'mask',
                 ramp_mult: Optional[float] = None,
                 ramp_iters: Optional[int] = None,
                 warmup_iters: Optional[int] = None,
                 **kwargs) -> None:
        super().__init__(*args, unsup_loss=unsup_loss or dict(type='ImageWeightedCrossEntropy'), **kwargs)
        tau_sim = tau_sim if tau_sim is not None else 0.1 if variant == 'cross' else 0.5
        hard_threshold = hard_threshold if hard_threshold is not None else 0.97 if variant == 'ori' else 0.8
        ramp_mult = ramp_mult if ramp_mult is not None else 0.0 if variant == 'ori' else -5.0
        for name, value, fits, expected in (
            ('variant', variant, variant in ('ori', 'mix', 'cross'), "'ori', 'mix' or 'cross'"),
            ('tau_sim', tau_sim, tau_sim > 0, 'a positive number'),
            ('tau_contrast', tau_contrast, tau_contrast > 0, 'a positive number'),
            ('contrast_threshold', contrast_threshold, 0 <= contrast_threshold <= 1, 'a number in [0, 1]'),
            ('hard_threshold', hard_threshold, 0 <= hard_threshold <= 1, 'a number in [0, 1]'),
            ('num_anchors', num_anchors, num_anchors >= 1, 'at least 1'),
            ('num_negatives', num_negatives, num_negatives >= 1, 'at least 1'),
            ('prototype_momentum', prototype_momentum, 0 <= prototype_momentum < 1, 'a number in [0, 1)'),
            ('prototype_source', prototype_source, prototype_source in ('student', 'teacher'),
             "'student' or 'teacher'"),
            ('unseen', unseen, unseen in ('mask', 'zero'), "'mask' or 'zero'"),
            ('ramp_mult', ramp_mult, ramp_mult <= 0, 'at most 0'),
            ('ramp_iters', ramp_iters, ramp_iters is None or ramp_iters > 0, 'positive or None'),
            ('warmup_iters', warmup_iters, warmup_iters is None or warmup_iters >= 0, 'at least 0 or None'),
        ):
            if not fits:
                raise ValueError(f'CSS.{name} must be {expected}, found {value!r}')
        require_pixel_reliability(self.labeler, 'CSS', 'its losses ask only whether a weight is positive')
        if variant == 'cross' and any(branch.labeled for branch in self.branches):
            raise ValueError("CSS: branches[i].labeled=True needs one label a pixel, expected variant 'ori' or 'mix', "
                             "found 'cross'")
        if variant == 'cross' and any(isinstance(loss, PseudoLabelKLDivergence) for loss in self.branch_losses):
            raise ValueError("CSS.unsup_loss.type='PseudoLabelKLDivergence' needs the probabilities of one space, "
                             "expected variant 'ori' or 'mix', found 'cross'")
        self.variant, self.unseen = variant, unseen
        self.tau_sim, self.tau_contrast = tau_sim, tau_contrast
        self.contrast_threshold, self.hard_threshold = contrast_threshold, hard_threshold
        self.sampling = dict(num_anchors=num_anchors, num_negatives=num_negatives, share_negatives=share_negatives)
        self.prototype_momentum, self.prototype_source = prototype_momentum, prototype_source
        self.ramp_mult, self.ramp_iters, self.warmup_iters = ramp_mult, ramp_iters, warmup_iters
        self._ramp, self._warmup = ramp_iters, warmup_iters  # None until training begins
        head = dict(type='RepresentationHead', in_channels=self.tap.channels, norm_cfg=self.decode_head.norm_cfg)
        head.update(representation_head or {})
        with torch.random.fork_rng(devices=[]):  # as the base: the student starts like a supervised model of its seed
            self.representation_head = MODELS.build(head)
            self.teacher.representation_head = MODELS.build(head).requires_grad_(False).eval()
        self.register_buffer('prototypes', torch.zeros(self.num_classes, self.representation_head.out_channels))
        self.register_buffer('prototype_seen', torch.zeros(self.num_classes, dtype=torch.bool))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        found = state_dict.get(f'{prefix}prototypes')
        if found is not None and found.shape != self.prototypes.shape:
            # A loader that is not strict would skip the prototypes and still take which of them were seen.
            raise ValueError('CSS: the checkpoint holds prototypes of shape (classes, channels) = '
                             f'{tuple(found.shape)}, this model expects {tuple(self.prototypes.shape)}')
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- schedules ----------------------------------------------------------------------------------------------

    def begin_train(self, max_iters: int) -> None:
        """Fills in the lengths that depend on that of training, and says whether the thresholds on J can be met."""
        super().begin_train(max_iters)
        self._ramp = max_iters - self.start_iter if self.ramp_iters is None else self.ramp_iters
        self._warmup = max_iters // 10 if self.warmup_iters is None else self.warmup_iters
        self._report_range()

    def _report_range(self) -> None:
        """Compares the largest value that J can take with the thresholds on it (spec section 3)."""
        if self.variant == 'ori':
            return
        bound = attainable_similarity(self.num_classes, self.tau_sim)
        orthogonal = 1 / (1 + (self.num_classes - 1) * math.exp(-1 / self.tau_sim))
        print_log(
            f'CSS: with tau_sim={self.tau_sim} and {self.num_classes} classes the softmax similarity is at most '
            f'{bound:.3f}; {orthogonal:.3f} for a pixel on its prototype, orthogonal to the others.', 'current')
        checks = [('hard_threshold', self.hard_threshold, 'every valid pixel is an anchor candidate')]
        if self.variant == 'cross':
            checks += [('unsup_loss.threshold', loss.threshold, 'the unsupervised loss is 0 after warm-up')
                       for loss in self.branch_losses if isinstance(loss, ImageWeightedCrossEntropy)]
        for name, threshold, consequence in checks:
            if orthogonal < threshold:
                reach = 'can never be reached, so' if bound < threshold else \
                    'takes prototypes that point away from each other to be reached; if they do not,'
                print_log(f'CSS: {name}={threshold} {reach} {consequence}; lower tau_sim (docs/methods/css.md)',
                          'current', level=logging.WARNING)
            else:
                print_log(f'CSS: {name}={threshold} can be reached.', 'current')

    def contrast_weight(self) -> float:
        """lambda of this iteration, in [0, 1]; 1 in the labeled-only phase."""
        share = max(self._clock[2] - self.start_iter, 0) / self._ramp
        return math.exp(self.ramp_mult * share**2) if share < 1 or self.ramp_mult == 0 else 0.0

    @property
    def _warming_up(self) -> bool:
        return self._clock[2] - self.start_iter < self._warmup

    # ---- slots of the step --------------------------------------------------------------------------------------

    def _run(self, network: EncoderDecoder, tap: FeatureTap, images: Tensor) -> Output:
        """Puts the representations [N, D, h, w] where the feature was."""
        out = super()._run(network, tap, images)
        return replace(out, tap=network.representation_head(out.tap))

    def teacher_views(self, step: Step) -> None:
        """Shows the teacher the labeled images too: for its BN statistics (not in ``'ori'``, spec section 4 step 2), or
        for the prototypes."""
        if self.prototype_source == 'teacher' or (self.teacher_bn == 'batch' and self.variant != 'ori'):
            step.out_teacher_labeled = self.teacher_forward(step.batch.labeled)
        super().teacher_views(step)

    @torch.no_grad()
    def pseudo_label(self, output: Output, batch: SemiBatch) -> Target:
        """Labels the weak views from both spaces; pixels without label have label 255 and weight 0 (spec section 3)."""
        own = super().pseudo_label(output, batch)
        size = tuple(batch.valid.shape[1:])
        y_rep, k_rep = representation_prediction(output.tap, self.prototypes, self.prototype_seen, size, self.tau_sim,
                                                 self.unseen, self.align_corners)
        label, confidence, label_con, confidence_con = collaborate(own.label, own.confidence, y_rep, k_rep,
                                                                   self.variant, self._warming_up)
        # What the labeler rejects has weight 0; the contrast has a threshold of its own.
        label = label.masked_fill(~batch.valid, IGNORE)
        target = replace(own, label=label, weight=own.weight * (label != IGNORE), confidence=confidence)
        if self.variant != 'cross':
            return target
        maps = {f.name: getattr(target, f.name) for f in fields(Target)}
        return TwoSpaceTarget(**maps, contrast_label=label_con, contrast_confidence=confidence_con)

    def extra_losses(self, step: Step) -> Dict[str, Tensor]:
        """L_c and the prototype update (spec section 4 steps 5 and 8 to 10)."""
        outputs = [step.out_labeled, *step.out_mixed]
        labels = [step.labels.masked_fill(step.labels == self.decode_head.ignore_index, IGNORE)]
        labels += [self._contrast_label(view.target) for view in step.mixed]
        features, label, hard = zip(*map(self._contrast_inputs, outputs, labels), strict=True)
        features, label, hard = torch.cat(features), torch.cat(label), torch.cat(hard)
        by_teacher = self.prototype_source == 'teacher' and step.out_teacher is not None
        broken = update_prototypes(self.prototypes, self.prototype_seen,
                                   *(self._teacher_pixels(step) if by_teacher else (features, label)),
                                   self.prototype_momentum)
        loss = prototype_info_nce(features, label, hard, self.prototypes, temperature=self.tau_contrast,
                                  generator=step.generator, **self.sampling)
        weight, valid = self.contrast_weight(), label != IGNORE
        present = loss.new_zeros(self.num_classes + 1).scatter_(0, label.clamp(max=self.num_classes), 1)
        return {
            'contrast.loss_nce': weight * loss,
            'monitor.nce': loss.detach(),
            'monitor.contrast_weight': loss.new_full((), weight),
            'monitor.classes': present[:-1].sum(),
            'monitor.hard': (hard & valid).sum() / valid.sum().clamp(min=1),
            'monitor.not_finite': broken.float()
        }

    def _teacher_pixels(self, step: Step) -> Tuple[Tensor, Tensor]:
        """The teacher's representations [M, D] of labeled images and weak views, and their labels [M]."""
        maps = [step.out_teacher_labeled.tap, step.out_teacher.tap]
        labels = [step.labels.masked_fill(step.labels == self.decode_head.ignore_index, IGNORE),
                  self._contrast_label(step.target)]
        return (torch.cat([z.permute(0, 2, 3, 1).flatten(0, 2) for z in maps]),
                torch.cat([nearest_grid(y, z.shape[2:]).flatten() for y, z in zip(labels, maps, strict=True)]))

    def _contrast_label(self, target: Target) -> Tensor:
        """Label of the contrastive loss where it is valid, else 255 (the row "valid mask" of spec section 3)."""
        label, confidence = target.label, target.confidence
        if isinstance(target, TwoSpaceTarget):
            label, confidence = target.contrast_label, target.contrast_confidence
        return label.where(target.valid & (confidence >= self.contrast_threshold), IGNORE)

    def _contrast_inputs(self, out: Output, label: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Representations [M, D], labels [M] and which pixels are hard [M], on the grid of the representations."""
        label = nearest_grid(label, out.tap.shape[2:])
        with torch.no_grad():
            if self.variant == 'ori':
                logits = resize(out.logits.float(), size=out.tap.shape[2:], mode='bilinear',
                                align_corners=self.align_corners, warning=False)
                probability = logits.softmax(dim=1)
            else:
                cosine = cosine_map(out.tap, self.prototypes)
                probability = softmax_similarity(cosine, self.prototype_seen, self.tau_sim, self.unseen)
            own = probability.gather(1, label.clamp(max=self.num_classes - 1)[:, None])[:, 0]
        features = out.tap.permute(0, 2, 3, 1).flatten(0, 2)
        return features, label.flatten(), (own < self.hard_threshold).flatten()

    def monitors(self, step: Step) -> Dict[str, Tensor]:
        """Also the mean image weight w_b, and in cross the share of valid pixels on which both spaces agree (1 in its
        warm-up); ``monitor.kept`` is the share of pixels with a label: agreement, in mix."""
        monitors = super().monitors(step)
        if isinstance(step.target, TwoSpaceTarget):
            valid = step.target.valid
            agree = (step.target.label == step.target.contrast_label) & valid
            monitors['monitor.agreement'] = agree.sum() / valid.sum().clamp(min=1)
        for i, (loss, view) in enumerate(zip(self.branch_losses, step.mixed, strict=False)):
            if isinstance(loss, ImageWeightedCrossEntropy):
                monitors[f'monitor.image_weight_{i}'] = loss.weights(view.target).mean()
        return monitors

    # ---- prediction ---------------------------------------------------------------------------------------------

    def _predict_logits(self, network: EncoderDecoder, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        logits = super()._predict_logits(network, inputs, batch_img_metas)
        (self.tap if network is self else self.teacher_tap).pop()  # predictions need no representation
        return logits

    def _forward(self, inputs: Tensor, data_samples: Optional[List] = None) -> Tensor:
        logits = super()._forward(inputs, data_samples)
        (self.teacher_tap if self._teacher_predicts else self.tap).pop()
        return logits
