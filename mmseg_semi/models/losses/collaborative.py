"""The parts of CSS that let logits and representations supervise together, all but the contrastive loss.

"Space Engage: Collaborative Space Supervision for Contrastive-based Semi-Supervised Semantic Segmentation", ICCV 2023,
https://arxiv.org/abs/2307.09755. Section numbers are those of the specification. Everything is float32, also under
autocast, and nothing is read on the host.
"""
import math
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Target

from .valid_cross_entropy import check_class_weight, class_weight_tensor, pixel_cross_entropy

IGNORE = 255


def attainable_similarity(num_classes: int, temperature: float) -> float:
    """Upper bound of the largest softmax similarity, ``1 / (1 + (C - 1) exp(-2 / tau))`` (section 3).

    A threshold above it is never reached: 0.732 for C = 21 and tau = 0.5.

    Args:
        num_classes (int): C >= 1.
        temperature (float): tau > 0.

    Returns:
        float: In (0, 1].
    """
    return 1 / (1 + (num_classes - 1) * math.exp(-2 / temperature))


def cosine_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine similarity of every pixel to every prototype (``s`` of section 3, before the resize).

    Args:
        features (Tensor): [N, D, h, w] raw.
        prototypes (Tensor): [C, D] raw. A prototype of zeros has similarity 0.

    Returns:
        Tensor: [N, C, h, w] float32 in [-1, 1].
    """
    with torch.autocast(features.device.type, enabled=False):
        features, unit = features.float(), F.normalize(prototypes.float(), dim=1, eps=1e-12)
        # Divides C channels where F.normalize would write D.
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)
        return (unit @ features.flatten(2)).unflatten(2, features.shape[2:]) / norm


def softmax_similarity(cosine: Tensor, seen: Tensor, temperature: float, unseen: str = 'mask') -> Tensor:
    """``J = softmax_c(s_c / tau)`` (section 3).

    Args:
        cosine (Tensor): [N, C, ...] float32, from :func:`cosine_map`.
        seen (Tensor): [C] bool, classes that have a prototype.
        temperature (float): tau > 0.
        unseen (str): What a class without prototype gets: ``'mask'``, probability 0; ``'zero'``, the cosine of its zero
            vector, 0, as published, which beats the negative cosines of classes that have one.

    Returns:
        Tensor: The same shape, float32 in [0, 1]; sums to 1 over the classes, or to 0 if all are masked.

    Raises:
        ValueError: If ``unseen`` is unknown.
    """
    if unseen not in ('mask', 'zero'):
        raise ValueError(f"unseen must be 'mask' or 'zero', got {unseen!r}")
    score = cosine.float() / temperature
    if unseen == 'zero':
        return score.softmax(dim=1)
    masked = ~seen.reshape(-1, *[1] * (score.dim() - 2))
    # The second fill also clears the NaN of pixels whose classes are all masked.
    return score.masked_fill(masked, -math.inf).softmax(dim=1).masked_fill(masked, 0)


@torch.no_grad()
def representation_prediction(features: Tensor,
                              prototypes: Tensor,
                              seen: Tensor,
                              size: Tuple[int, int],
                              tau_sim: float,
                              unseen: str = 'mask',
                              align_corners: bool = True) -> Tuple[Tensor, Tensor]:
    """What the representations say about every pixel: the nearest prototype (section 3).

    The cosines are resized to the image, bilinear, before the softmax.

    Args:
        features (Tensor): [N, D, h, w] raw representations of the teacher.
        prototypes (Tensor): [C, D] raw.
        seen (Tensor): [C] bool.
        size (tuple[int, int]): (H, W) of the image.
        tau_sim (float): Temperature of the softmax similarity, > 0. The label does not depend on it.
        unseen (str): See :func:`softmax_similarity`.
        align_corners (bool): Of the resize; take the decode head's.

    Returns:
        tuple[Tensor, Tensor]: y_rep and k_rep, [N, H, W] each, int64 and float32 in [0, 1]. Where every class is
        masked, the label is 255 and its confidence 0.

    Raises:
        ValueError: If ``unseen`` is unknown.
    """
    cosine = _resize(cosine_map(features, prototypes), size, align_corners)
    confidence, label = softmax_similarity(cosine, seen, tau_sim, unseen).max(dim=1)
    if unseen == 'mask':
        label = torch.where(seen.any(), label, IGNORE)
    return label, confidence


def _resize(maps: Tensor, size: Tuple[int, int], align_corners: bool) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(size):
        return maps.float()
    return resize(maps.float(), size=size, mode='bilinear', align_corners=align_corners, warning=False)


def nearest_grid(maps: Tensor, size: Tuple[int, int]) -> Tensor:
    """Takes labels, confidences or masks to the grid of the features: ``src = floor(dst * H / h)`` (section 4 step 8).

    Args:
        maps (Tensor): [N, H, W], any dtype, which ``F.interpolate(mode='nearest')`` does not take.
        size (tuple[int, int]): (h, w).

    Returns:
        Tensor: [N, h, w], the same dtype.
    """
    rows, columns = (torch.arange(to, device=maps.device) * source // to
                     for to, source in zip(size, maps.shape[1:], strict=True))
    return maps[:, rows[:, None], columns]


def collaborate(y_lgt: Tensor,
                conf_lgt: Tensor,
                y_rep: Tensor,
                conf_rep: Tensor,
                variant: str,
                warmup: bool = False) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which pseudo-label and confidence train which loss (the table of section 3).

    - ``'ori'``: those of the logits train both.
    - ``'mix'``: the label both spaces agree on, else 255, and the confidence of the logits train both.
    - ``'cross'``: those of the representations train the logits, those of the logits the representations; while
      warming up, as ``'ori'``.

    Args:
        y_lgt, conf_lgt (Tensor): [N, H, W], label and confidence of the teacher's logits.
        y_rep, conf_rep (Tensor): [N, H, W] from :func:`representation_prediction`.
        variant (str): ``'ori'``, ``'mix'`` or ``'cross'``.
        warmup (bool): Whether ``'cross'`` does not yet trust the prototypes.

    Returns:
        tuple[Tensor, Tensor, Tensor, Tensor]: Label and confidence for the cross-entropy, then for the contrastive
        loss. The second pair **is** the first unless the labels differ (``'cross'`` after warm-up), so that an augment
        need move one pair only.

    Raises:
        ValueError: If ``variant`` is unknown.
    """
    if variant not in ('ori', 'mix', 'cross'):
        raise ValueError(f"variant must be 'ori', 'mix' or 'cross', got {variant!r}")
    if variant == 'cross' and not warmup:
        return y_rep, conf_rep, y_lgt, conf_lgt
    label = torch.where(y_lgt == y_rep, y_lgt, IGNORE) if variant == 'mix' else y_lgt
    return label, conf_lgt, label, conf_lgt


def image_weights(label: Tensor, confidence: Tensor, threshold: float, weight_numerator: str = 'all') -> Tensor:
    """Weight of each image in the unsupervised loss, ``w_b = #{k >= delta_u} / #{label}`` (section 4 step 7).

    Args:
        label (Tensor): [N, H, W] int64, 255 where there is none.
        confidence (Tensor): [N, H, W].
        threshold (float): delta_u.
        weight_numerator (str): ``'all'`` counts every confident pixel, as published, so that the weight may exceed 1;
            ``'valid'`` only those that have a label.

    Returns:
        Tensor: [N] float32, 0 for an image without a label.
    """
    valid, confident = label != IGNORE, confidence >= threshold
    if weight_numerator == 'valid':
        confident = confident & valid
    labeled = valid.sum(dim=(1, 2))
    return torch.where(labeled > 0, confident.sum(dim=(1, 2)) / labeled.clamp(min=1), 0.0)


@MODELS.register_module()
class ImageWeightedCrossEntropy(nn.Module):
    """Cross-entropy of pseudo-labels in which every image has a weight of its own (section 4 step 7).

    With l the cross-entropy of each pixel of this rank and w from :func:`image_weights`::

        L_u = (1 / |S|) sum_{(b, p) in S} w_b l_bp

    Divisor: ``|S|``, by ``mean_over``. Every pixel with a label trains, whatever its confidence.

    Args:
        threshold (float): delta_u, in [0, 1], which the weights of the images count against.
        weight_numerator (str): See :func:`image_weights`.
        mean_over (str): S is ``'positive'``, the pixels with l > 0, as published; ``'valid'``, those with a label.
        class_weight (Sequence[float], optional): How much a pixel of each class counts in both sums of the mean,
            positive.

    Raises:
        ValueError: If an argument is unknown or out of its range; when called, if there are not as many class weights
            as channels.
    """

    def __init__(self,
                 threshold: float = 0.97,
                 weight_numerator: str = 'all',
                 mean_over: str = 'positive',
                 class_weight: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f'unsup_loss.threshold must be in [0, 1], got {threshold}')
        if weight_numerator not in ('all', 'valid'):
            raise ValueError(f"weight_numerator must be 'all' or 'valid', got {weight_numerator!r}")
        if mean_over not in ('positive', 'valid'):
            raise ValueError(f"mean_over must be 'positive' or 'valid', got {mean_over!r}")
        self.threshold, self.weight_numerator, self.mean_over = threshold, weight_numerator, mean_over
        self.register_buffer('class_weight', class_weight_tensor(class_weight), persistent=False)

    def weights(self, target: Target) -> Tensor:
        """Weight of each image, [N] float32."""
        label = target.label.where(target.weight > 0, IGNORE)
        confidence = target.confidence.where(target.valid, -1)  # below every threshold, 0 included
        return image_weights(label, confidence, self.threshold, self.weight_numerator)

    def forward(self, logits: Tensor, target: Target, align_corners: bool) -> Tensor:
        """Computes the loss.

        Args:
            logits (Tensor): [N, C, h, w] of the student, any float precision.
            target (Target): Maps of [N, H, W]; pixels of weight 0 or label 255 have no loss, no other weight is read.
            align_corners (bool): Of the bilinear resize of the logits; take the decode head's.

        Returns:
            Tensor: Scalar float32; exactly 0 and connected to the graph if S is empty.
        """
        label = target.label.where(target.weight > 0, IGNORE)
        loss = pixel_cross_entropy(_resize(logits, label.shape[1:], align_corners), label)
        # NaN counts as positive, so that a diverged network shows. Even a loss of 0 has a gradient, hence where.
        counted = ~(loss.detach() <= 0) if self.mean_over == 'positive' else label != IGNORE
        loss, counts = torch.where(counted, loss, 0), counted.float()
        if self.class_weight is not None:
            check_class_weight('unsup_loss', self.class_weight, logits)
            counts = counts * self.class_weight[label.where(label != IGNORE, 0)]
            loss = loss * counts
        total = counts.sum()
        return (loss * self.weights(target)[:, None, None]).sum() / total.where(total > 0, 1)


@torch.no_grad()
def update_prototypes(prototypes: Tensor, seen: Tensor, features: Tensor, label: Tensor, momentum: float) -> Tensor:
    """``rho_c <- alpha rho_c + (1 - alpha) mean_c``, or ``mean_c`` the first time, in place (section 5).

    The mean is that of the pixels of all ranks. Every rank must call this every step, also without a pixel. A class
    whose mean is not finite stays as it is.

    Args:
        prototypes (Tensor): [C, D] float32 raw, changed.
        seen (Tensor): [C] bool, changed.
        features (Tensor): [M, D] raw representations.
        label (Tensor): [M] int64; anything outside 0..C-1 is left out.
        momentum (float): alpha in [0, 1).

    Returns:
        Tensor: Scalar int64, how many classes had a mean that is not finite.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.detach().float()
        member = (label[:, None] == torch.arange(len(prototypes), device=label.device)).float()  # [M, C]
        # A sum is finite only if its terms are. Zeros in place of the rest, or 0 * inf would reach every class.
        finite = torch.isfinite(features.sum(dim=1))
        sums = member.T @ torch.where(finite[:, None], features, 0)
        broken = member.T @ (~finite).float() > 0
        sums = sums.masked_fill(broken[:, None], math.nan)
        statistics = torch.cat([sums, member.sum(dim=0)[:, None]], dim=1)  # [C, D + 1]
        all_reduce(statistics, op='sum')
        sums, counts = statistics[:, :-1], statistics[:, -1]
        mean = sums / counts.clamp(min=1)[:, None]
        usable = torch.isfinite(mean).all(dim=1)
        moved = torch.where(seen[:, None], momentum * prototypes + (1 - momentum) * mean, mean)
        update = usable & (counts > 0)
        prototypes.copy_(torch.where(update[:, None], moved, prototypes))
        seen.copy_(seen | update)
    return (~usable).sum()
