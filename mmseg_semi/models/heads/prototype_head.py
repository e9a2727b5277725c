"""PCR's second classifier: the best cosine similarity to K prototypes per class."""
import logging
from typing import Dict, Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_semi.registry import MODELS


def prototype_scores(features: Tensor, bank: Tensor, valid: Tensor, temperature: float) -> Tuple[Tensor, Tensor]:
    """Class scores of pixels, ``z_c = max_k <f^, p^_ck> / T`` (PCR spec section 2).

    Args:
        features (Tensor): [M, D] float32.
        bank (Tensor): [C, K, D] float32 raw prototypes; normalized here, no gradient flows into them.
        valid (Tensor): [C] bool; a class without prototypes scores cosine -1.
        temperature (float): T.

    Returns:
        tuple[Tensor, Tensor]: Scores [M, C] float32 in [-1/T, 1/T] and the index of the best prototype of each class,
        [M, C] int64 in 0..K-1, the first one on ties.
    """
    unit = F.normalize(features, dim=1, eps=1e-12)
    prototypes = F.normalize(bank.detach(), dim=2, eps=1e-12)
    cosine = (unit @ prototypes.flatten(0, 1).T).unflatten(1, bank.shape[:2])  # [M, C, K]
    best, nearest = cosine.max(dim=2)
    return best.masked_fill(~valid, -1.0) / temperature, nearest


def accumulate(features: Tensor, label: Tensor, nearest: Tensor, keep: Tensor, num_classes: int,
               num_prototypes: int) -> Tuple[Tensor, Tensor]:
    """Sums the kept pixels per prototype of their own class (PCR spec section 5).

    Args:
        features (Tensor): [M, D] raw features.
        label (Tensor): [M] int64; anything where ``keep`` is false.
        nearest (Tensor): [M, C] int64 from :func:`prototype_scores`.
        keep (Tensor): [M] bool.
        num_classes (int): C.
        num_prototypes (int): K.

    Returns:
        tuple[Tensor, Tensor]: Sums [C, K, D] and counts [C, K], float32.
    """
    own = torch.where(keep, label, 0)
    row = own * num_prototypes + nearest.gather(1, own[:, None]).squeeze(1)
    kept = torch.where(keep[:, None], features, 0.0)  # where, not times: a dropped inf must not become NaN
    sums = features.new_zeros(num_classes * num_prototypes, features.shape[1]).index_add_(0, row, kept)
    counts = features.new_zeros(num_classes * num_prototypes).index_add_(0, row, keep.to(features.dtype))
    return sums.unflatten(0, (num_classes, num_prototypes)), counts.unflatten(0, (num_classes, num_prototypes))


def ema_bank(bank: Tensor, sums: Tensor, counts: Tensor, momentum: float) -> Tensor:
    """``p <- alpha p + (1 - alpha) mean`` for prototypes that got pixels; the others stay (PCR spec section 5).

    Args:
        bank (Tensor): [C, K, D] raw prototypes.
        sums (Tensor): [C, K, D].
        counts (Tensor): [C, K].
        momentum (float): alpha in [0, 1).

    Returns:
        Tensor: The new bank, [C, K, D]; not normalized.
    """
    mean = sums / counts.clamp(min=1)[..., None]
    return torch.where((counts > 0)[..., None], momentum * bank + (1 - momentum) * mean, bank)


@MODELS.register_module()
class PrototypeHead(nn.Module):
    """K prototypes per class, compared with pixels by cosine; maintained by a moving average, never by gradient.

    "Semi-supervised Semantic Segmentation with Prototype-based Consistency Regularization", NeurIPS 2022,
    https://arxiv.org/abs/2210.04388. All arithmetic is float32, also under autocast.

    Args:
        num_classes (int): C.
        channels (int): D, channels of the tapped feature.
        num_prototypes (int): K per class. Published: 4 (VOC), 3 (Cityscapes).
        temperature (float): T > 0. Published: 0.1.
        momentum (float): alpha of the prototype average, in [0, 1). Published: 0.99.
        grid_size (int): G; one pixel is picked in each of G x G cells. Published: 32.
        loss_weight (float): w_p >= 0. Published: 1.0.

    Attributes:
        bank (Tensor): Buffer [C, K, D] float32, raw (not normalized) prototypes.
        class_valid (Tensor): Buffer [C] bool, false while a class has no prototypes.
        initialized (Tensor): Buffer, bool scalar; while false every loss is 0 and no update happens.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self,
                 num_classes: int,
                 channels: int,
                 num_prototypes: int = 4,
                 temperature: float = 0.1,
                 momentum: float = 0.99,
                 grid_size: int = 32,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        for name, value, legal, ok in (
            ('num_prototypes', num_prototypes, '>= 1', num_prototypes >= 1),
            ('temperature', temperature, '> 0', temperature > 0),
            ('momentum', momentum, 'in [0, 1)', 0 <= momentum < 1),
            ('grid_size', grid_size, '>= 1', grid_size >= 1),
            ('loss_weight', loss_weight, '>= 0', loss_weight >= 0),
        ):
            if not ok:
                raise ValueError(f'prototype_head.{name} must be {legal}, found {value}')
        self.num_classes, self.num_prototypes, self.channels = num_classes, num_prototypes, channels
        self.temperature, self.momentum = temperature, momentum
        self.grid_size, self.loss_weight = grid_size, loss_weight
        self.register_buffer('bank', torch.zeros(num_classes, num_prototypes, channels))
        self.register_buffer('class_valid', torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer('initialized', torch.tensor(False))

    def set_bank(self, bank: Tensor, class_valid: Tensor) -> None:
        """Starts the head from given prototypes.

        Args:
            bank (Tensor): [C, K, D], finite.
            class_valid (Tensor): [C] bool.

        Raises:
            ValueError: If shapes disagree with the head or a value is not finite.
        """
        if bank.shape != self.bank.shape or class_valid.shape != self.class_valid.shape:
            raise ValueError('expected a bank of shape (classes, prototypes, channels) = '
                             f'{tuple(self.bank.shape)} and {self.num_classes} flags, found {tuple(bank.shape)} and '
                             f'{tuple(class_valid.shape)}')
        if not torch.isfinite(bank).all():
            raise ValueError(f'the bank holds {int((~torch.isfinite(bank)).sum())} values that are not finite')
        self.bank.copy_(bank)
        self.class_valid.copy_(class_valid)
        self.initialized.fill_(True)

    def forward(self, features: Tensor) -> Tuple[Tensor, Tensor]:
        """Scores pixels.

        Args:
            features (Tensor): [M, D].

        Returns:
            tuple[Tensor, Tensor]: As :func:`prototype_scores`.
        """
        with torch.autocast(features.device.type, enabled=False):
            return prototype_scores(features.float(), self.bank, self.class_valid, self.temperature)

    def loss(self, scores: Tensor, label: Tensor, keep: Tensor) -> Tensor:
        """Mean cross-entropy over the kept pixels whose class has prototypes; divisor: their number.

        Args:
            scores (Tensor): [M, C] from :meth:`forward`.
            label (Tensor): [M] int64; anything where ``keep`` is false.
            keep (Tensor): [M] bool.

        Returns:
            Tensor: Scalar, times ``loss_weight``; exactly 0 with a graph when nothing is kept.
        """
        own = torch.where(keep, label, 0)
        keep = (keep & self.class_valid[own] & self.initialized).to(scores.dtype)
        per_pixel = F.cross_entropy(scores, own, reduction='none')
        return self.loss_weight * (per_pixel * keep).sum() / keep.sum().clamp(min=1)

    @torch.no_grad()
    def update(self, features: Tensor, label: Tensor, nearest: Tensor, keep: Tensor) -> Dict[str, Tensor]:
        """Moves the prototypes by one step with the pixels of all ranks.

        Every rank must call this every step, also without a pixel. Sums and counts are reduced, so that all ranks
        apply the exact global mean. Features that are not finite are left out. A class without prototypes gets the
        mean of its first kept pixels in all K rows.

        Args:
            features (Tensor): [M, D] of this step's student forward.
            label (Tensor): [M] int64; anything where ``keep`` is false.
            nearest (Tensor): [M, C] int64 from :meth:`forward`, by the bank before this update.
            keep (Tensor): [M] bool.

        Returns:
            dict[str, Tensor]: ``monitor.not_finite``, the number of pixels left out on this rank.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.detach().float()
            finite = torch.isfinite(features).all(dim=1)
            sums, counts = accumulate(features, label, nearest, keep & finite, self.num_classes, self.num_prototypes)
            statistics = torch.cat([sums, counts[..., None]], dim=2)  # [C, K, D + 1]
            all_reduce(statistics, op='sum')
            sums, counts = statistics[..., :-1], statistics[..., -1]
            moved = ema_bank(self.bank, sums, counts, self.momentum)
            of_class = counts.sum(dim=1)
            first = (sums.sum(dim=1) / of_class.clamp(min=1)[:, None])[:, None].expand_as(self.bank)
            born = ~self.class_valid & (of_class > 0)
            bank = torch.where(self.class_valid[:, None, None], moved, self.bank)
            bank = torch.where(born[:, None, None], first, bank)
            self.bank.copy_(torch.where(self.initialized, bank, self.bank))
            self.class_valid.copy_(self.class_valid | (born & self.initialized))
        return {'monitor.not_finite': (keep & ~finite).sum().float()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        if f'{prefix}bank' not in state_dict:
            self.initialized.fill_(False)
            print_log(
                'The checkpoint holds no prototypes: prototype losses stay 0 until they are initialized, and '
                'predict_with="prototype" is not available. Prediction with the linear head is not affected.',
                logger='current',
                level=logging.WARNING)
        elif state_dict[f'{prefix}bank'].shape != self.bank.shape:
            # A loader that is not strict would skip the bank and still take `initialized`.
            raise ValueError('prototype_head: the checkpoint holds a bank of shape (classes, prototypes, channels) = '
                             f"{tuple(state_dict[f'{prefix}bank'].shape)}, this model expects {tuple(self.bank.shape)}")
        super()._load_from_state_dict(state_dict, prefix, *args)
