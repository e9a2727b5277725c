"""The records that travel through one training step.

Shapes: ``N`` images, ``C`` classes, ``H x W`` the crop, ``h x w`` the resolution of a head. Records are never edited in
place; a stage returns a new one.
"""
from dataclasses import dataclass, field, fields, replace
from typing import Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class SemiBatch:
    """What the data preprocessor hands to the segmentor.

    Attributes:
        labeled (Tensor): Labeled images, [N_l, 3, H, W] float, RGB in [0, 1], not yet normalized.
        weak (Tensor): Weak views of the unlabeled images, [N_u, 3, H, W], the same format.
        valid (Tensor): [N_u, H, W] bool, false where ``weak`` is padding.
    """
    labeled: Tensor
    weak: Tensor
    valid: Tensor


@dataclass(frozen=True)
class GuidedBatch(SemiBatch):
    """A batch of CISC-R: images with a guide each, a labeled image that shares a class with them.

    What a stage has no use for is None. Classes are -1 where image and guide share none.

    Attributes:
        labeled (Tensor): As in :class:`SemiBatch`; of P labeled pairs, the P images and then their P guides.
        pair_class (Tensor, optional): [P] int64, the class that each labeled pair shares.
        guide (Tensor, optional): Guides of the unlabeled images, [N_u, 3, H, W], the same format.
        guide_label (Tensor, optional): Their ground truth, [N_u, H, W] int64, 255 = ignore or padding.
        guide_class (Tensor, optional): [N_u] int64, the class that each unlabeled image shares with its guide.
        pseudo_label (Tensor, optional): Of ``weak``, from files, [N_u, H, W] int64, 255 = ignore or padding.
    """
    pair_class: Optional[Tensor] = None
    guide: Optional[Tensor] = None
    guide_label: Optional[Tensor] = None
    guide_class: Optional[Tensor] = None
    pseudo_label: Optional[Tensor] = None


@dataclass(frozen=True)
class Target:
    """A pseudo-label. Never ground truth.

    Attributes:
        label (Tensor): [N, H, W] int64 in 0..C-1, or 255 where the weight is 0.
        weight (Tensor): [N, H, W] float32 in [0, 1]; 0 on padding and on rejected pixels.
        confidence (Tensor): [N, H, W] float32 in [0, 1], the labeler's score of ``label``.
        valid (Tensor): [N, H, W] bool, false on padding.
    """
    label: Tensor = field(metadata=dict(padding=255))
    weight: Tensor
    confidence: Tensor
    valid: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> 'Target':
        """Applies one function to every map, so that they can never drift apart."""
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self)})

    def pad_outside(self, region: Tensor) -> 'Target':
        """The same target of one image, maps of [..., H, W], but padding outside a region [H, W] bool."""
        return replace(self, **{f.name: getattr(self, f.name).masked_fill(~region, f.metadata.get('padding', 0))
                                for f in fields(self)})

    def restrict(self, region: Tensor) -> 'Target':
        """The same target, but pixels outside a region [N, H, W] bool are neither trained nor counted."""
        return replace(self, weight=self.weight * region, valid=self.valid & region)


@dataclass(frozen=True)
class SoftTarget(Target):
    """A pseudo-label together with the distribution that it is the mode of.

    Attributes:
        probability (Tensor): [N, C, H, W] float32, sums to 1 over the classes.
    """
    probability: Tensor


@dataclass(frozen=True)
class TwoSpaceTarget(Target):
    """A pseudo-label of the logits' loss together with another one for the loss of the representations (CSS).

    Attributes:
        contrast_label (Tensor): [N, H, W] int64 in 0..C-1.
        contrast_confidence (Tensor): [N, H, W] float32 in [0, 1], the score of ``contrast_label``.
    """
    contrast_label: Tensor = field(metadata=dict(padding=255))
    contrast_confidence: Tensor


@dataclass(frozen=True)
class View:
    """Images together with what the student should say about them.

    Attributes:
        images (Tensor): [N, 3, H, W] float, RGB in [0, 1], not yet normalized.
        target (Target): The pseudo-label of the same pixels.
    """
    images: Tensor
    target: Target

    def mix(self, mask: Tensor, partner: Tensor) -> 'View':
        """Takes the pixels under a mask from other images of the batch.

        Args:
            mask (Tensor): [N, H, W] bool, true where the partner shows.
            partner (Tensor): [N] int64, image i receives from image ``partner[i]``.

        Returns:
            View: A new view; images and every map of the target moved alike.
        """
        def take(x: Tensor) -> Tensor:
            where = mask[:, None] if x.dim() == 4 else mask
            return torch.where(where, x[partner], x)

        return View(take(self.images), self.target.map(take))

    def join(self, other: 'View') -> 'View':
        """The images of both.

        Raises:
            TypeError: If a target is more than a :class:`Target`, since the other has nothing to fill its maps with.
        """
        if type(self.target) is not Target:
            raise TypeError('branches[i].labeled=True goes with plain pseudo-labels, found '
                            f'{type(self.target).__name__} (soft=True, or CSS cross)')
        maps = {f.name: torch.cat([getattr(self.target, f.name), getattr(other.target, f.name)])
                for f in fields(Target)}
        return View(torch.cat([self.images, other.images]), Target(**maps))

    def with_images(self, images: Tensor) -> 'View':
        """The same target under other pixels (photometric augments)."""
        return replace(self, images=images)


@dataclass(frozen=True)
class Output:
    """What a network says about a batch of images.

    Attributes:
        logits (Tensor): [N, C, h, w], as the decode head returns them.
        tap (Tensor, optional): The feature a :class:`FeatureTap` caught, [N, D, h', w'], or what its reader made of it
            ([N, P, D] at P picked pixels).
        aux_logits (tuple[Tensor]): One [N, C, ., .] per auxiliary head; empty without.
    """
    logits: Tensor
    tap: Optional[Tensor] = None
    aux_logits: Sequence[Tensor] = ()

    def split(self, sizes: Sequence[int]) -> List['Output']:
        """Cuts a joint forward back into its groups of ``sizes`` images."""
        logits = self.logits.split(sizes)
        taps = self.tap.split(sizes) if self.tap is not None else [None] * len(sizes)
        aux = [a.split(sizes) for a in self.aux_logits]
        return [Output(logits[i], taps[i], tuple(a[i] for a in aux)) for i in range(len(sizes))]


@dataclass
class Step:
    """Everything one training step knows, by name.

    Attributes:
        batch (SemiBatch): The images.
        labels (Tensor): Ground truth of the labeled images, [N_l, H, W] int64, 255 = ignore.
        generator (torch.Generator): CPU generator seeded by (seed, rank, iteration); every draw of the step uses it.
        out_labeled (Output): Student on ``batch.labeled``.
        out_teacher (Output): Teacher on ``batch.weak``.
        out_teacher_labeled (Output): Teacher on ``batch.labeled``, for methods that ask it.
        target (Target): Pseudo-label of ``batch.weak``.
        mixed (list[View]): One strong view per branch.
        out_mixed (list[Output]): Student on each strong view.
        points (tuple[Tensor, Tensor]): Rows and columns of the pixels at which ``Output.tap`` was read, [P] int64 each,
            for methods that read it at picked pixels only.
    """
    batch: SemiBatch
    labels: Tensor
    generator: torch.Generator
    out_labeled: Optional[Output] = None
    out_teacher: Optional[Output] = None
    out_teacher_labeled: Optional[Output] = None
    target: Optional[Target] = None
    mixed: List[View] = field(default_factory=list)
    out_mixed: List[Output] = field(default_factory=list)
    points: Optional[Tuple[Tensor, Tensor]] = None
