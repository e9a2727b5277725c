"""Cross-image consistency of CISC-R: the features of one image's class against the pixels of another image.

"Querying Labeled for Unlabeled: Cross-Image Semantic Consistency Guided Semi-Supervised Semantic Segmentation", TPAMI
2023, https://doi.org/10.1109/TPAMI.2022.3233584. Section numbers are those of the specification. Everything is at
least float32, also under autocast, and nothing is read on the host.
"""
import math
from functools import lru_cache
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pixel_loss import weighted_pixel_loss
from .valid_cross_entropy import pixel_cross_entropy

IGNORE = 255
MIN_NORM = 1e-8
CLIP = 1e-6  # a probability of 0 where the class is would have a gradient of 1e12
CHUNK = 2**23  # pixels x classes that anchor_scores holds at once: 32 MiB in each of its maps


@lru_cache(maxsize=16)
def _interpolation_matrix(source: int, size: int, align_corners: bool, dtype: torch.dtype,
                          device: torch.device) -> Tensor:
    """A [size, source] such that ``A @ x`` is what torch makes of x when it resizes it linearly."""
    unit = torch.eye(source, dtype=dtype, device=device)[None]
    return F.interpolate(unit, size=size, mode='linear', align_corners=align_corners)[0].T.contiguous()


def masked_average_pool(features: Tensor, mask: Tensor, eps: float = 5e-4, align_corners: bool = False) -> Tensor:
    """Mean of the features, resized to the mask, over the mask (``v`` of section 4).

    ``v = sum_p M(p) up(F)(p) / (sum_p M(p) + eps)``. The resize is linear, ``up(F) = A_h F A_w^T``, hence the sum is
    ``sum_q F(q) w(q)`` with ``w = A_h^T M A_w``: the mask is taken to the size of the features, and features of the
    size of the mask are never made.

    Args:
        features (Tensor): [N, D, h, w].
        mask (Tensor): [N, H, W] bool, or [N, K, H, W] for K regions of each image.
        eps (float): delta > 0, in pixels of the mask. An empty mask gives zeros.
        align_corners (bool): Of the bilinear resize.

    Returns:
        Tensor: [N, D] or [N, K, D], float32 (float64 for float64 features), with a gradient to the features.
    """
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, torch.float32)
        rows, columns = (_interpolation_matrix(source, size, align_corners, dtype, features.device)
                         for source, size in zip(features.shape[2:], mask.shape[-2:], strict=True))
        share = rows.T @ (mask.to(dtype) @ columns)
        area = mask.sum(dim=(-2, -1)).to(dtype)[..., None]
        return torch.einsum('ndq,n...q->n...d', features.to(dtype).flatten(2), share.flatten(-2)) / (area + eps)


def _similarity(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosine [N, K, h, w] of features [N, D, h, w] to the K vectors [N, K, D] of their image; 0 if one is zero."""
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, torch.float32)
        features, vectors = features.to(dtype), vectors.to(dtype)
        product = (vectors @ features.flatten(2)).unflatten(2, features.shape[2:])
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        norms = torch.linalg.vector_norm(vectors, dim=2)[:, :, None, None]
        # A vector of zeros has no direction, and without the fill a gradient of 1 / MIN_NORM. NaN stays, to be seen.
        return (product / (norm.clamp(min=MIN_NORM) * norms.clamp(min=MIN_NORM))).masked_fill(
            (norm <= MIN_NORM) | (norms <= MIN_NORM), 0)


def _resized_similarity(cosine: Tensor, size: Tuple[int, int], similarity_range: str, align_corners: bool) -> Tensor:
    """Cosines [N, K, h, w] as similarities [N, K, H, W] in [0, 1]."""
    if similarity_range not in ('relu', 'affine'):
        raise ValueError(f"similarity_range must be 'relu' or 'affine', got {similarity_range!r}")
    resized = F.interpolate(cosine, size=tuple(size), mode='bilinear', align_corners=align_corners)
    return (resized if similarity_range == 'relu' else (1 + resized) / 2).clamp(0, 1)


def cosine_similarity_map(features: Tensor,
                          vector: Tensor,
                          size: Tuple[int, int],
                          similarity_range: str = 'relu',
                          align_corners: bool = False) -> Tensor:
    """Similarity of every pixel to the vector of its image's guide, the CISC map (``S`` of section 4).

    The cosine is resized and then mapped to [0, 1]. It is 0 where a norm is at most 1e-8, without a gradient.

    Args:
        features (Tensor): [N, D, h, w].
        vector (Tensor): [N, D], from :func:`masked_average_pool`.
        size (tuple[int, int]): (H, W) of the result.
        similarity_range (str): ``'relu'`` clips the cosine to [0, 1], for features that follow a ReLU; ``'affine'`` is
            ``(1 + cosine) / 2``, for signed ones, whose gradient clipping would stop.
        align_corners (bool): Of the bilinear resize.

    Returns:
        Tensor: [N, H, W] in [0, 1], float32 (float64 for float64 features), with a gradient to both arguments.

    Raises:
        ValueError: If ``similarity_range`` is unknown.
    """
    return _resized_similarity(_similarity(features, vector[:, None]), size, similarity_range, align_corners)[:, 0]


def _agreement(similarity: Tensor, mask: Tensor) -> Tensor:
    """``1 - |M - S|``: the similarity inside the mask, one minus it outside."""
    return similarity.where(mask, 1 - similarity)


@torch.no_grad()
def rectify_weight(similarity: Tensor, guide_mask: Tensor, has_guide: Tensor) -> Tensor:
    """How far a pseudo-label agrees with the guide, ``W = 1 - |M - S|`` (section 5).

    Args:
        similarity (Tensor): [N, H, W], clipped to [0, 1].
        guide_mask (Tensor): [N, H, W] bool, pixels whose pseudo-label is the class of the guide.
        has_guide (Tensor): [N] bool, false where no guide shares a class with the image.

    Returns:
        Tensor: [N, H, W] in [0, 1], at least float32, without gradient; 1 in images without a guide.
    """
    similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32)).clamp(0, 1)
    return _agreement(similarity, guide_mask).where(has_guide[:, None, None], 1)


def consistency_loss(similarity: Tensor, mask: Tensor, valid: Tensor, has_guide: Tensor) -> Tensor:
    """Binary cross-entropy between the similarity and the true region of the class (one direction of ``L_con`` of
    section 4).

    Divisor: the valid pixels of this rank, of images without a guide too, although these have no loss; as published.

    Args:
        similarity (Tensor): [N, H, W] from :func:`cosine_similarity_map`, clipped to [1e-6, 1 - 1e-6].
        mask (Tensor): [N, H, W] bool, pixels of the class of the guide.
        valid (Tensor): [N, H, W] bool, pixels that have a label.
        has_guide (Tensor): [N] bool, false where no guide shares a class with the image.

    Returns:
        Tensor: Scalar, at least float32; exactly 0 and connected to the graph when no valid pixel has a guide.
    """
    similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
    # F.binary_cross_entropy refuses to run under autocast and stops the device at a NaN.
    loss = -_agreement(similarity, mask).clamp(CLIP, 1 - CLIP).log()
    count = valid.sum()
    return loss.where(valid & has_guide[:, None, None], 0).sum() / count.where(count > 0, 1)


def rectified_cross_entropy(logits: Tensor,
                            label: Tensor,
                            weight: Tensor,
                            average_ignored: bool = True,
                            class_weight: Optional[Tensor] = None) -> Tensor:
    """Cross-entropy of pseudo-labels weighted by their agreement with the guide (``L_rect`` of section 5).

    ``L_rect = sum_p W(p) CE(p) / D``.

    Args:
        logits (Tensor): [N, C, H, W] of the student, any float precision.
        label (Tensor): [N, H, W] int64 in 0..C-1, or 255 where there is no loss.
        weight (Tensor): [N, H, W] in [0, 1], from :func:`rectify_weight`.
        average_ignored (bool): D is N x H x W, as published; otherwise the number of pixels whose label is not 255.
        class_weight (Tensor, optional): [C], how much a pixel of each class counts in both sums; one without label, in
            D, as the mean class.

    Returns:
        Tensor: Scalar, at least float32; exactly 0 and connected to the graph when every label is 255.
    """
    has_label = label != IGNORE
    counted = torch.ones_like(has_label) if average_ignored else has_label
    if class_weight is not None:
        counted = counted * class_weight[label.where(has_label, 0)].where(has_label, class_weight.mean())
    return weighted_pixel_loss(pixel_cross_entropy(logits, label), weight, counted)


@torch.no_grad()
def anchor_scores(features: Tensor,
                  anchors: Tensor,
                  anchor_valid: Tensor,
                  label: Tensor,
                  similarity_range: str = 'relu',
                  align_corners: bool = False) -> Tuple[Tensor, Tensor]:
    """How badly the label of one image agrees with the anchor of every class (``r(x, y, c)`` of section 6).

    The mean, over the pixels that have a label, of the binary cross-entropy between the similarity to the anchor,
    clipped to [1e-6, 1 - 1e-6], and whether the label is the class. Low is good.

    Args:
        features (Tensor): [D, h, w].
        anchors (Tensor): [C, D], mean feature of each class.
        anchor_valid (Tensor): [C] bool, classes that have an anchor.
        label (Tensor): [H, W] integers in 0..C-1, or 255 where there is none.
        similarity_range (str): See :func:`cosine_similarity_map`.
        align_corners (bool): Of the bilinear resize of the similarity.

    Returns:
        tuple[Tensor, Tensor]: Scores [C], at least float32, +inf for a class without an anchor and, if no pixel has a
        label, for all; and [C] bool, the classes in the label.

    Raises:
        ValueError: If ``similarity_range`` is unknown.
    """
    cosine = _similarity(features[None], anchors[None])
    has_label = label != IGNORE
    scores, occurs = [], []
    for part, classes in zip(
            *(x.split(max(1, CHUNK // label.numel()))
              for x in (cosine[0], torch.arange(len(anchors), device=label.device))), strict=True):
        similarity = _resized_similarity(part[None], label.shape, similarity_range, align_corners)[0]
        member = label == classes[:, None, None]
        loss = -_agreement(similarity, member).clamp_(CLIP, 1 - CLIP).log_()
        scores.append(loss.where(has_label, 0).sum(dim=(1, 2)))
        occurs.append(member.flatten(1).any(dim=1))
    count = has_label.sum()
    mean = torch.cat(scores) / count.where(count > 0, 1)
    return mean.where(anchor_valid & (count > 0), math.inf), torch.cat(occurs)


def image_score(scores: Tensor, occurs: Tensor, reduce: str = 'sum') -> Tensor:
    """Score of an image, ``R(x)`` of section 6: that of its classes, those without an anchor left out.

    Args:
        scores (Tensor): [C] from :func:`anchor_scores`.
        occurs (Tensor): [C] bool from the same.
        reduce (str): ``'sum'``, as published, which ranks images of many classes last; or ``'mean'``.

    Returns:
        Tensor: Scalar, +inf if no class is left.

    Raises:
        ValueError: If ``reduce`` is unknown.
    """
    if reduce not in ('sum', 'mean'):
        raise ValueError(f"reduce must be 'sum' or 'mean', got {reduce!r}")
    used = occurs & (scores != math.inf)
    count = used.sum()
    total = scores.where(used, 0).sum()
    return (total / count.where(count > 0, 1) if reduce == 'mean' else total).where(count > 0, math.inf)
