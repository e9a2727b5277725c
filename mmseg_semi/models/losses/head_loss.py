"""The loss of an mmseg head without the host syncs of its accuracy."""
from typing import Dict, List

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn


def head_loss(head: BaseDecodeHead, logits: Tensor, labels: Tensor, data_samples: List) -> Dict[str, Tensor]:
    """As ``head.loss_by_feat(logits, data_samples)``, the same numbers under the same keys.

    mmseg counts the labeled pixels on the host, twice for every head and step, so a GPU runs dry in mid-step. A head
    with a ``loss_by_feat`` of its own, or with a pixel sampler, keeps it.

    Args:
        head (BaseDecodeHead): Whose losses to compute.
        logits (Tensor): What the head returned, [N, C, h, w] for most heads.
        labels (Tensor): [N, H, W] int64, those of ``data_samples``.
        data_samples (list[SegDataSample]): Of the same images.

    Returns:
        dict[str, Tensor]: The head's losses, and ``acc_seg``, the share of right pixels in percent, 0 without labels.
    """
    if type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat or head.sampler is not None:
        return head.loss_by_feat(logits, data_samples)
    logits = resize(logits, size=labels.shape[1:], mode='bilinear', align_corners=head.align_corners)
    losses: Dict[str, Tensor] = {}
    for loss in head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]:
        value = loss(logits, labels, weight=None, ignore_index=head.ignore_index)
        losses[loss.loss_name] = losses[loss.loss_name] + value if loss.loss_name in losses else value
    with torch.no_grad():
        valid = labels != head.ignore_index
        right = (logits.argmax(dim=1) == labels) & valid
        losses['acc_seg'] = 100 * right.sum() / valid.sum().clamp(min=1)
    return losses
