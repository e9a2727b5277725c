"""The base of every method: an mmseg segmentor that also owns its teacher."""
import contextlib
from dataclasses import replace
from typing import Dict, List, Optional, Sequence

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_semi.models.batch_norm import BNGroup, batch_statistics, refuse_checkpointing, untracked_statistics
from mmseg_semi.models.branch import StrongBranch, step_generator
from mmseg_semi.models.checkpoint import prepare_state_dict, without_pretrained
from mmseg_semi.models.feature_tap import FeatureTap, classifier_path
from mmseg_semi.models.losses import head_loss
from mmseg_semi.models.network_check import aux_heads, check_heads, check_network
from mmseg_semi.models.segmentors.rehearsal import try_losses, try_views
from mmseg_semi.models.segmentors.sliding import SlidingWindows
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Output, SemiBatch, Step, Target, View


@MODELS.register_module()
class SemiEncoderDecoder(SlidingWindows, EncoderDecoder):
    """Mean-teacher consistency on strong views: FixMatch with an EMA teacher, and the base of all methods.

    The student is the model itself (``backbone.*``, ``decode_head.*``), the teacher a frozen ``EncoderDecoder`` under
    ``teacher.*``, moved by :class:`EMATeacherHook`. One step::

        loss(): new_step()
                teacher_views() -> pseudo_label() -> strong_views()      (from start_iter on)
                student_views()   -> student_forward()
                supervised_loss() + unsupervised_loss() + extra_losses()

    A method overrides one to three of these.

    Args:
        backbone, decode_head, neck, auxiliary_head, train_cfg, test_cfg, data_preprocessor, pretrained, init_cfg: As
            ``EncoderDecoder``.
        labeler (dict): Turns teacher logits into a :class:`Target`; what it puts into ``monitors`` is logged.
        branches (Sequence[dict]): One :class:`StrongBranch` per strong view.
        labeled_augments (Sequence[dict]): Batch augments of the labeled images that leave the labels where they are
            (photometric ones). Defaults to none.
        unsup_loss (dict): Loss of a strong view. Defaults to cross-entropy over valid pixels.
        start_iter (int): Iterations of labeled-only training before the teacher labels. Defaults to 0.
        joint_forward (bool): Whether labeled and strong images pass the student as one batch. That changes BN
            statistics. Defaults to False.
        teacher_bn (str): Where the teacher's BN statistics come from: ``'running'``: :class:`EMATeacherHook` moves
            them. ``'forward'`` (U2PL): from forwards of the teacher itself on the student's images; the pseudo-labels
            still come from eval mode. Costs one more forward. ``'batch'`` (CSS): from the forwards on the weak views,
            normalized by their own batch, so pseudo-labels depend on it. Both need the hook's ``buffers='own'``.
        eval_with (str): Who predicts: ``'teacher'``, ``'student'``, or ``'both'`` (the teacher's prediction is the
            result, the student's stands beside it as ``student_sem_seg`` for ``StudentIoUMetric``).
        tap (str, optional): Module path in the decode head whose input is the feature of :attr:`Output.tap`; only for
            methods that read it (``uses_tap``). Defaults to what :class:`FeatureTap` finds.
        num_stages (int, optional): Left over from a cascade's config, which is refused with its reason.

    Raises:
        ImportError: If a part of the network belongs to a package that is not installed.
        ValueError: If an option is unknown or out of its range, or :func:`check_network` or :func:`check_heads` refuses
            the network.
    """

    #: Whether the method reads a feature of the decode head.
    uses_tap = False
    #: Finds the feature where ``tap`` does not name it.
    find_tap = staticmethod(classifier_path)
    #: Name of the hook without which training would leave out a part of the method.
    needed_hook: Optional[str] = None

    def __init__(self,
                 backbone: dict,
                 decode_head: dict,
                 labeler: dict,
                 branches: Sequence[dict],
                 neck: Optional[dict] = None,
                 auxiliary_head: Optional[dict] = None,
                 train_cfg: Optional[dict] = None,
                 test_cfg: Optional[dict] = None,
                 data_preprocessor: Optional[dict] = None,
                 pretrained: Optional[str] = None,
                 init_cfg: Optional[dict] = None,
                 unsup_loss: Optional[dict] = None,
                 labeled_augments: Sequence[dict] = (),
                 start_iter: int = 0,
                 joint_forward: bool = False,
                 teacher_bn: str = 'running',
                 eval_with: str = 'teacher',
                 tap: Optional[str] = None,
                 num_stages: Optional[int] = None) -> None:
        if eval_with not in ('teacher', 'student', 'both'):
            raise ValueError(f"eval_with must be 'teacher', 'student' or 'both', found {eval_with!r}")
        if teacher_bn not in ('running', 'forward', 'batch'):
            raise ValueError(f"teacher_bn must be 'running', 'forward' or 'batch', found {teacher_bn!r}")
        check_network(backbone, decode_head, labeler, data_preprocessor, num_stages=num_stages)
        if start_iter < 0:
            raise ValueError(f'start_iter must be >= 0, found {start_iter}')
        parts = [without_pretrained(p) for p in (backbone, decode_head, neck)]  # it is a copy of the student anyway
        super().__init__(
            backbone=backbone,
            decode_head=decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg)
        if self.out_channels != self.num_classes:
            raise ValueError(f'decode_head.out_channels is {self.out_channels} for {self.num_classes} classes: '
                             'pseudo-labels need one logit per class, so leave out_channels unset')
        check_heads(self)
        # Forked, so that a student starts from the same weights as a supervised model of the same seed.
        with torch.random.fork_rng(devices=[]):
            self.teacher = EncoderDecoder(*parts[:2], neck=parts[2], test_cfg=test_cfg)
        self.teacher.requires_grad_(False).eval()
        self.labeler = MODELS.build(labeler)
        color = {name: getattr(self.data_preprocessor, name, None) for name in ('mean', 'std')}
        self.branches = [StrongBranch(**branch, **color, name=f'branches[{i}]') for i, branch in enumerate(branches)]
        self.labeled_augments = StrongBranch(labeled_augments, **color, name='labeled_augments')
        if not all(branch.update_bn for branch in self.branches):
            refuse_checkpointing(self)
        self.unsup_loss = MODELS.build(unsup_loss or dict(type='PseudoLabelCrossEntropy'))
        self.branch_losses = nn.ModuleList([
            MODELS.build(branch.unsup_loss) if branch.unsup_loss else self.unsup_loss for branch in self.branches])
        try_losses(self)
        self.start_iter, self.joint_forward, self.eval_with = start_iter, joint_forward, eval_with
        self.teacher_bn = teacher_bn
        self.tap = FeatureTap(self.decode_head, tap, self.find_tap) if self.uses_tap else None
        self.teacher_tap = FeatureTap(self.teacher.decode_head, tap, self.find_tap) if self.uses_tap else None
        self._clock: Optional[tuple] = None

    # ---- the student and its twin -------------------------------------------------------------------------------

    def init_weights(self) -> None:
        """Initializes the student; the teacher becomes its copy."""
        teacher, self.teacher = self.teacher, None
        super().init_weights()
        self.teacher = teacher
        self.copy_student_to_teacher()

    @torch.no_grad()
    def copy_student_to_teacher(self) -> None:
        """Sets every parameter and buffer of the teacher to the student's."""
        student = self.state_dict()
        self.teacher.load_state_dict({name: student[name] for name in self.teacher.state_dict()})

    def train(self, mode: bool = True) -> 'SemiEncoderDecoder':
        """As ``nn.Module.train``; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Refuses what does not fit; fills the teacher too when a plain segmentor's checkpoint is loaded."""
        prepare_state_dict(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- one training step --------------------------------------------------------------------------------------

    def begin_train(self, max_iters: int) -> None:
        """Learns how long training lasts (:class:`EMATeacherHook`); augments that do not fit the crop fail here."""
        try_views(self)

    @property
    def one_size(self) -> bool:
        """Whether labeled and unlabeled crops must have the same size, since they meet in one tensor."""
        return self.joint_forward or any(branch.labeled for branch in self.branches)

    def begin_iter(self, iteration: int, seed: int, rank: int) -> None:
        """Tells the model where training stands; called by :class:`EMATeacherHook` before each iteration."""
        self._clock = (seed, rank, iteration)

    @property
    def unsup_active(self) -> bool:
        """Whether the teacher labels in this iteration."""
        return self._clock is not None and self._clock[2] >= self.start_iter

    def loss(self, inputs: SemiBatch, data_samples: List) -> Dict[str, Tensor]:
        """Calculates the losses of one step.

        Args:
            inputs (SemiBatch): From :class:`SemiSegDataPreProcessor`.
            data_samples (list[SegDataSample]): Of the labeled images, with ``gt_sem_seg``.

        Returns:
            dict[str, Tensor]: Keys with ``loss`` are optimized; ``monitor.*`` are only logged.

        Raises:
            TypeError: If the batch does not come from ``SemiSegDataPreProcessor``.
            RuntimeError: If no ``EMATeacherHook`` runs, since the teacher would never move.
            ValueError: If labeled and unlabeled crops differ in size and must not (:attr:`one_size`).
        """
        step = self.new_step(inputs, data_samples)
        if self.unsup_active:
            self.teacher_views(step)
            step.target = self.pseudo_label(step.out_teacher, inputs)
            step.mixed = self.strong_views(step)
            if self.teacher_bn == 'forward':
                self.move_teacher_statistics(step)
        self.student_views(step)
        losses = self.supervised_loss(step, data_samples)
        losses.update(self.unsupervised_loss(step))
        losses.update(self.extra_losses(step))
        losses.update(self.monitors(step))
        return losses

    def new_step(self, inputs: SemiBatch, data_samples: List) -> Step:
        """Checks the batch and opens the record of the step."""
        if not isinstance(inputs, SemiBatch):
            raise TypeError(f'{type(self).__name__} trains on a SemiBatch, found {type(inputs).__name__}: set '
                            "model.data_preprocessor.type='SemiSegDataPreProcessor' and "
                            "train_dataloader.collate_fn=dict(type='semi_collate')")
        if self._clock is None:
            raise RuntimeError(f'{type(self).__name__} needs dict(type="EMATeacherHook") in custom_hooks: without it '
                               'the teacher never moves')
        labeled, weak = (tuple(images.shape[1:]) for images in (inputs.labeled, inputs.weak))
        if self.one_size and labeled != weak:
            raise ValueError(f'labeled and unlabeled crops must have the same size: found {labeled} and {weak}; use '
                             'the same RandomCrop in both pipelines and set data_preprocessor.size to it')
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples])
        generator = step_generator(*self._clock)
        return Step(batch=self._augment_labeled(inputs, labels, generator), labels=labels, generator=generator)

    def _augment_labeled(self, inputs: SemiBatch, labels: Tensor, generator: torch.Generator) -> SemiBatch:
        if not self.labeled_augments.augments:
            return inputs
        view = self._labeled_view(inputs, labels)
        augmented = self.labeled_augments(view, generator)
        if augmented.target is not view.target:
            raise ValueError('labeled_augments move the labels, found '
                             f'{[type(a).__name__ for a in self.labeled_augments.augments]}; expected photometric '
                             'augments that train on all pixels; geometric transforms belong into the pipeline')
        return replace(inputs, labeled=augmented.images)

    def teacher_views(self, step: Step) -> None:
        """Fills ``out_teacher``."""
        step.out_teacher = self.teacher_forward(step.batch.weak)

    @torch.no_grad()
    def teacher_forward(self, images: Tensor, track: bool = True) -> Output:
        """Runs the teacher on images [N, 3, H, W] in [0, 1]: in eval mode, its BN layers as ``teacher_bn`` says.

        With ``track=False`` its statistics stay as they are.
        """
        with contextlib.ExitStack() as modes:
            if self.teacher_bn == 'batch':
                modes.enter_context(batch_statistics(self.teacher))
            if not track:
                modes.enter_context(untracked_statistics(self.teacher))
            return self._run(self.teacher, self.teacher_tap, images)

    def _labeled_view(self, inputs: SemiBatch, labels: Tensor) -> View:
        valid = labels != self.decode_head.ignore_index
        one = valid.float()
        return View(inputs.labeled, Target(labels.masked_fill(~valid, 255), weight=one, confidence=one, valid=valid))

    @torch.no_grad()
    def pseudo_label(self, output: Output, batch: SemiBatch) -> Target:
        """Labels the weak views: teacher logits at image size through the labeler."""

        def full(logits: Tensor, size: tuple) -> Tensor:
            return resize(logits.float(), size=size, mode='bilinear', align_corners=self.align_corners)

        def predict(size: tuple, flip: bool) -> Tensor:
            images = resize(batch.weak, size=size, mode='bilinear', align_corners=False)
            # Rescaled images look unlike those that the statistics are for.
            logits = full(self.teacher_forward(images.flip(3) if flip else images, track=False).logits, size)
            return logits.flip(3) if flip else logits

        logits = full(output.logits, tuple(batch.valid.shape[1:]))
        return self.labeler(logits, batch.valid, predict, self._clock[2] - self.start_iter)

    @torch.no_grad()
    def strong_views(self, step: Step) -> List[View]:
        """One strong view per branch."""
        weak = View(step.batch.weak, step.target)
        views = [weak.join(self._labeled_view(step.batch, step.labels)) if branch.labeled else weak
                 for branch in self.branches]
        return [branch(view, step.generator) for branch, view in zip(self.branches, views, strict=True)]

    @torch.no_grad()
    def move_teacher_statistics(self, step: Step) -> None:
        """Shows the teacher, in train mode, what the student sees, so that its BN statistics move."""
        self.teacher.train()
        for group in self._student_groups(step):
            if group.update_bn:
                self._run(self.teacher, self.teacher_tap, torch.cat(group.images))
        self.teacher.eval()

    def _student_groups(self, step: Step) -> List[BNGroup]:
        """What passes the student together: everything or nothing, but a view that must leave BN alone goes alone."""
        groups = [BNGroup([step.batch.labeled], [0], True)]
        for i, (view, branch) in enumerate(zip(step.mixed, self.branches[:len(step.mixed)], strict=True), start=1):
            if self.joint_forward and branch.update_bn:
                groups[0].images.append(view.images)
                groups[0].places.append(i)
            else:
                groups.append(BNGroup([view.images], [i], branch.update_bn))
        return groups

    def student_views(self, step: Step) -> None:
        """Fills ``out_labeled`` and ``out_mixed``, in one forward per group."""
        outputs: List[Optional[Output]] = [None] * (1 + len(step.mixed))
        for group in self._student_groups(step):
            with contextlib.nullcontext() if group.update_bn else untracked_statistics(self):
                out = self.student_forward(torch.cat(group.images))
            for place, part in zip(group.places, out.split([len(images) for images in group.images]), strict=True):
                outputs[place] = part
        step.out_labeled, *step.out_mixed = outputs

    def student_forward(self, images: Tensor) -> Output:
        """Runs the student on images [N, 3, H, W] in [0, 1].

        Raises:
            ValueError: If a BN layer gets a single value per channel: one image behind a global pooling.
        """
        return self._run(self, self.tap, images)

    def _run(self, network: EncoderDecoder, tap: Optional[FeatureTap], images: Tensor) -> Output:
        try:
            features = network.extract_feat(self.data_preprocessor.normalize(images))
            logits = network.decode_head(features)
            aux = tuple(head(features) for head in aux_heads(network))
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise ValueError('a BN layer of the network gets one value per channel, that of the only image in the '
                             f'batch {tuple(images.shape)}: set train_dataloader.sampler.counts to at least 2 of each '
                             "kind per GPU, norm_cfg.type='SyncBN' on several GPUs, or 'GN'") from error
        return Output(logits=logits, tap=tap.pop() if tap else None, aux_logits=aux)

    def supervised_loss(self, step: Step, data_samples: List) -> Dict[str, Tensor]:
        """The heads' own losses on the labeled images, auxiliary heads included."""
        out = step.out_labeled
        losses = add_prefix(head_loss(self.decode_head, out.logits, step.labels, data_samples), 'decode')
        heads = aux_heads(self)
        for i, (head, logits) in enumerate(zip(heads, out.aux_logits, strict=True)):
            name = f'aux_{i}' if len(heads) > 1 else 'aux'
            losses.update(add_prefix(head_loss(head, logits, step.labels, data_samples), name))
        return losses

    def unsupervised_loss(self, step: Step) -> Dict[str, Tensor]:
        """Weighted cross-entropy of each strong view; its divisor is that of ``unsup_loss``."""
        losses = {}
        for i, (out, view) in enumerate(zip(step.out_mixed, step.mixed, strict=True)):
            weight = self.branches[i].weight(self._clock[2] - self.start_iter)
            losses[f'unsup_{i}.loss_ce'] = weight * self.branch_losses[i](out.logits, view.target, self.align_corners)
        return losses

    def extra_losses(self, step: Step) -> Dict[str, Tensor]:
        """A method's own terms; none in the base."""
        return {}

    def monitors(self, step: Step) -> Dict[str, Tensor]:
        """Mean weight (the kept share) and confidence over the valid pixels of the weak views, before mixing.

        What the labeler has in ``monitors`` is added.
        """
        if step.target is None:
            return {}
        count = step.target.valid.sum().clamp(min=1)
        return {
            'monitor.kept': step.target.weight.sum() / count,
            'monitor.confidence': (step.target.confidence * step.target.valid).sum() / count,
            **getattr(self.labeler, 'monitors', {})
        }

    # ---- prediction ---------------------------------------------------------------------------------------------

    def encode_decode(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """As ``EncoderDecoder.encode_decode``, by the network that ``eval_with`` names."""
        return self._predict_logits(self.teacher if self._teacher_predicts else self, inputs, batch_img_metas)

    def _predict_logits(self, network: EncoderDecoder, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        return EncoderDecoder.encode_decode(network, inputs, batch_img_metas)

    @property
    def _teacher_predicts(self) -> bool:
        return self.eval_with != 'student'

    def predict(self, inputs: Tensor, data_samples: Optional[List] = None) -> List:
        """As ``EncoderDecoder.predict``; with ``eval_with='both'`` samples also get ``student_sem_seg``."""
        if self.eval_with != 'both' or data_samples is None:
            return super().predict(inputs, data_samples)
        self.eval_with = 'student'
        try:
            student = [sample.pred_sem_seg for sample in super().predict(inputs, data_samples)]
        finally:
            self.eval_with = 'both'
        samples = super().predict(inputs, data_samples)
        for sample, prediction in zip(samples, student, strict=True):
            sample.set_data({'student_sem_seg': prediction})
        return samples

    def _forward(self, inputs: Tensor, data_samples: Optional[List] = None) -> Tensor:
        """Raw logits of the predicting network (FLOPs counters, exporters)."""
        return EncoderDecoder._forward(self.teacher if self._teacher_predicts else self, inputs, data_samples)
