"""Prototype InfoNCE of CSS: hard pixels against their class prototype and sampled pixels of other classes."""
import warnings
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Negatives are read in blocks: on CPUs of a size that stays in the cache, elsewhere large enough to be few.
CPU_BLOCK, BLOCK = 2**22, 2**27  # bytes
DRAWS_PER_PIXEL = 3  # from where on reading all pixels in order beats reading those that are drawn
DRAWN = 2**18  # negatives that are drawn at once: few small kernels, without arrays of the size of all draws


class Pools(NamedTuple):
    """Pixels sorted by class, within a class the hard ones first. Class c owns ``start[c] : start[c] + count[c]``.

    Attributes:
        order (Tensor): [M] int64, pixel of each position.
        start (Tensor): [C] int64.
        count (Tensor): [C] int64, size of V_c, the valid pixels of the class.
        hard (Tensor): [C] int64, size of A_c, its anchor candidates.
    """
    order: Tensor
    start: Tensor
    count: Tensor
    hard: Tensor


def class_pools(label: Tensor, hard: Tensor, num_classes: int) -> Pools:
    """Sorts pixels into the sets V_c and A_c (CSS spec section 4 step 8) without reading a size on the host.

    Args:
        label (Tensor): [M] int64; anything outside 0..C-1 is in no set.
        hard (Tensor): [M] bool.
        num_classes (int): C.

    Returns:
        Pools: The sets.
    """
    inside = (label >= 0) & (label < num_classes)
    key = torch.where(inside, 2 * label + ~hard, 2 * num_classes).int()  # int32 sorts three times as fast
    key, order = key.sort(stable=True)
    edges = torch.searchsorted(key, torch.arange(2 * num_classes + 1, dtype=torch.int32, device=key.device))
    start = edges[:-1:2]
    return Pools(order, start, edges[2::2] - start, edges[1::2] - start)


def anchor_pixels(u: Tensor, pools: Pools) -> Tensor:
    """Draws anchors, uniform over A_c with replacement.

    Args:
        u (Tensor): [C, Q] float64, uniform in [0, 1).
        pools (Pools): Of C classes.

    Returns:
        Tensor: [C, Q] int64 pixels; any one pixel for a class without hard pixels.
    """
    step = torch.minimum((u * pools.hard[:, None]).long(), pools.hard[:, None] - 1)  # the product may round up to |A_c|
    return pools.order[torch.where(pools.hard[:, None] > 0, pools.start[:, None] + step, 0)]


class NegativeSampler:
    """Draws negatives: class j by ``P_c(j) = softmax_j cos(rho_c, rho_j) / tau`` over the other classes that have
    pixels here, then a pixel uniform over V_j, hard or not (CSS spec section 4 step 10).

    One uniform number decides both, by the inverse of the distribution function of (class, pixel).

    Args:
        pools (Pools): Of C classes.
        prototypes (Tensor): [C, D].
        temperature (float): tau > 0.

    Attributes:
        probability (Tensor): P, [C, C] float64, a row per class c; arbitrary in rows without another class.
        low (Tensor): [C, C] float64, the probability of the classes before j.
    """

    def __init__(self, pools: Pools, prototypes: Tensor, temperature: float) -> None:
        self.pools = pools
        unit = F.normalize(prototypes.detach().double(), dim=1, eps=1e-12)
        # A prototype that is not finite shows in the positive; here it must not lead to pixels that do not exist.
        score = torch.nan_to_num(unit @ unit.T / temperature)
        here = (pools.count > 0) & ~torch.eye(len(score), dtype=torch.bool, device=score.device)
        # Not -inf, whose softmax is NaN in a row without another class.
        share = score.masked_fill(~here, torch.finfo(score.dtype).min).softmax(dim=1)
        # Sums of integers are exact, so that a class of probability 0 gets no sliver of the interval, and deterministic
        # mode, which refuses floating sums on GPUs, accepts them.
        high = (share * 2**52).long().cumsum(dim=1).double()
        self.high = high / high[:, -1:]
        self.low = F.pad(self.high[:, :-1], (1, 0))
        self.probability = self.high - self.low
        self.density = pools.count / self.probability  # pixels per unit of u
        # A row without another class may lead to an empty one: to some position that exists.
        self.first, self.steps = pools.start.clamp(max=len(pools.order) - 1), (pools.count - 1).clamp(min=0)

    def __call__(self, u: Tensor, classes: Tensor) -> Tensor:
        """Draws pixels.

        Args:
            u (Tensor): [S, N] float64, uniform in [0, 1).
            classes (Tensor): [S] int64, c of each row.

        Returns:
            Tensor: [S, N] int64 pixels; any pixels in rows of classes that are not :meth:`trainable`.
        """
        high, low, density = (table.index_select(0, classes) for table in (self.high, self.low, self.density))
        other = torch.searchsorted(high, u, right=True)
        step = ((u - low.gather(1, other)) * density.gather(1, other)).long().flatten()
        other = other.flatten()  # index_select reads numbers several times as fast as indexing does
        step = torch.minimum(step, self.steps.index_select(0, other))  # the product may round up to the count
        return self.pools.order.index_select(0, step.add_(self.first.index_select(0, other))).view_as(u)

    def trainable(self) -> Tensor:
        """[C] bool, classes that have anchors and another class to be told from."""
        return (self.pools.hard > 0) & ((self.pools.count > 0).sum() > 1)


@torch.no_grad()
def negative_logsumexp(anchors: Tensor, features: Tensor, sampler: NegativeSampler, u: Tensor,
                       temperature: float) -> Tuple[Tensor, Tensor]:
    """``log sum_n exp(cos(a, z_n) / tau)`` and its gradient with respect to a, in pieces of bounded size.

    Args:
        anchors (Tensor): [S, G, D], S sets of anchors of one class each that share N negatives; unit vectors.
        features (Tensor): [M, D] raw.
        sampler (NegativeSampler): Draws the pixels.
        u (Tensor): [S, N] float64, uniform in [0, 1), S a multiple of C; sets in the order of their classes.
        temperature (float): tau > 0.

    Returns:
        tuple[Tensor, Tensor]: [S, G] and [S, G, D], of the anchors' dtype.
    """
    classes = torch.arange(len(u), device=u.device) // (len(u) // len(sampler.high))
    # Of all pixels at once: each is drawn several times.
    scale = 1 / torch.linalg.vector_norm(features, dim=1, dtype=anchors.dtype).clamp(min=1e-12) / temperature
    # sampled_addmm refuses more pairs than cells, which fewer pixels than negatives could lead to.
    by_region = (features.device.type == 'cpu' and anchors.shape[1] == 1 and u.shape[1] <= len(features)
                 and u.numel() > DRAWS_PER_PIXEL * len(features))
    return (_in_regions if by_region else _in_blocks)(anchors, features, scale, sampler, u, classes)


def _in_blocks(anchors: Tensor, features: Tensor, scale: Tensor, sampler: NegativeSampler, u: Tensor,
               classes: Tensor) -> Tuple[Tensor, Tensor]:
    """:func:`negative_logsumexp` set by set: fixed shapes, nothing is read on the host."""
    (sets, count), width = u.shape, features.shape[1]
    block = max((CPU_BLOCK if features.device.type == 'cpu' else BLOCK) // (count * width * features.element_size()), 1)
    block = min(block, sets)
    drawn = max(DRAWN // (block * count), 1) * block
    buffer = features.new_empty(block * count, width)
    value, gradient = anchors.new_empty(anchors.shape[:2]), torch.empty_like(anchors)
    for first in range(0, sets, drawn):
        pixels = sampler(u[first:first + drawn], classes[first:first + drawn])
        factors = scale.index_select(0, pixels.flatten()).view(len(pixels), 1, count)
        starts = range(first, sets, block)
        for i, pixel, factor in zip(starts, pixels.split(block), factors.split(block)):  # noqa: B905 the last to end
            # Into the same memory again: asking for new pages takes CPUs several times as long as the read itself.
            rows = torch.index_select(features, 0, pixel.flatten(), out=buffer[:pixel.numel()])
            rows = rows.to(anchors.dtype).unflatten(0, (-1, count))  # [b, N, D]
            score = torch.bmm(anchors[i:i + block], rows.transpose(1, 2)).mul_(factor)  # [b, G, N]
            top = score.amax(dim=2, keepdim=True)
            weight = score.sub_(top).exp_()
            total = weight.sum(dim=2, keepdim=True)
            value[i:i + block] = (top + total.log()).squeeze(2)
            torch.bmm(weight.mul_(factor).div_(total), rows, out=gradient[i:i + block])
    return value, gradient


def _in_regions(anchors: Tensor, features: Tensor, scale: Tensor, sampler: NegativeSampler, u: Tensor,
                classes: Tensor) -> Tuple[Tensor, Tensor]:
    """:func:`negative_logsumexp` region by region of the pixels: every row comes from memory twice, not once a draw.

    G is 1. The pairs of anchor and pixel in a region are a sparse matrix, whose sizes only a CPU reads for free.
    """
    anchors, (sets, count) = anchors.squeeze(1), u.shape
    region = min(max(CPU_BLOCK // (features.shape[1] * anchors.element_size()), count), len(features))
    split = torch.arange(1, len(features) // region) * region  # the last region is the longest
    pixels = torch.empty(u.shape, dtype=torch.int32)
    step = max(DRAWN // count, 1)
    for first in range(0, sets, step):
        pixels[first:first + step] = sampler(u[first:first + step], classes[first:first + step])
    pixels = pixels.flatten()
    regions, draw = (pixels // region).clamp_(max=len(split)).sort(stable=True)
    edges = torch.searchsorted(regions, torch.arange(len(split) + 2, dtype=torch.int32)).tolist()
    pixels = pixels.index_select(0, draw)
    owner, column = draw // count, pixels - regions * region  # of each pair: its set, its row of the region
    factor = scale.index_select(0, pixels)
    bounds, parts = torch.arange(sets + 1), [slice(*edge) for edge in zip(edges[:-1], edges[1:], strict=True)]
    starts = [torch.searchsorted(owner[part], bounds, out_int32=True) for part in parts]  # where a set's pairs begin

    dots = anchors.new_zeros(len(draw))  # beta=0 still multiplies what is there
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Sparse', UserWarning)  # torch: that CSR is new, that nobody checks it
        for part, start, rows in zip(parts, starts, features.tensor_split(split), strict=True):
            rows = rows.to(anchors.dtype)
            pattern = torch.sparse_csr_tensor(start, column[part], dots[part], (sets, len(rows)))
            dots[part] = torch.sparse.sampled_addmm(pattern, anchors, rows.t(), beta=0).values()
    score = torch.empty_like(dots).index_copy_(0, draw, dots.mul_(factor)).view(sets, count)
    weight = score.softmax(dim=1).flatten().index_select(0, draw).mul_(factor)
    gradient = torch.zeros_like(anchors)
    for part, start, rows in zip(parts, starts, features.tensor_split(split), strict=True):
        gradient += F.embedding_bag(column[part], rows.to(anchors.dtype), start[:-1], mode='sum',
                                    per_sample_weights=weight[part])
    return score.logsumexp(dim=1, keepdim=True), gradient[:, None]


def _generator_on(device: torch.device, source: torch.Generator) -> Optional[torch.Generator]:
    seed = int(torch.randint(2**63 - 1, (), generator=source))
    return None if device.type == 'meta' else torch.Generator(device).manual_seed(seed)


def prototype_info_nce(features: Tensor,
                       label: Tensor,
                       hard: Tensor,
                       prototypes: Tensor,
                       num_anchors: int = 256,
                       num_negatives: int = 512,
                       temperature: float = 0.5,
                       share_negatives: bool = False,
                       generator: Optional[torch.Generator] = None) -> Tensor:
    """Contrast of hard pixels with their prototype and pixels of other classes (CSS spec section 4 step 10).

    With Q anchors a_q drawn from the hard pixels of class c, N negatives n_qn for each (:class:`NegativeSampler`) and
    K classes that have a pixel on this rank::

        l_c = mean_q -log( e^{cos(a_q, rho_c)/tau} / (e^{cos(a_q, rho_c)/tau} + sum_n e^{cos(a_q, n_qn)/tau}) )
        L   = (1 / K) sum_c l_c

    Divisor: K; a class without hard pixels counts in K and adds 0. The gradient flows through the anchors only. All
    arithmetic is float32 at least, also under autocast. Nothing is read on the host, every shape is fixed; but CPUs,
    whose reads cost nothing, sort the draws by regions where they are many. Memory beside the gradient of ``features``:
    one block of negatives (128 MiB, on CPUs 4 MiB), 8 C Q N bytes of draws and about ten MiB for those that are
    being read; in regions about 60 C Q N bytes, before that gradient exists.

    Args:
        features (Tensor): [M, D] raw representations of all pixels.
        label (Tensor): [M] int64 in 0..C-1 for the valid pixels; others, such as 255, are in no set.
        hard (Tensor): [M] bool, anchor candidates among the valid pixels.
        prototypes (Tensor): [C, D] raw, those after this step's update.
        num_anchors (int): Q >= 1 per class.
        num_negatives (int): N >= 1 per anchor.
        temperature (float): tau > 0.
        share_negatives (bool): The Q anchors of a class share one set of N negatives. The law of each anchor, hence
            expected loss and gradient, stay the same; much cheaper.
        generator (torch.Generator, optional): For the draws; by default the device's own. One on the CPU seeds another
            one on the device of the features: the draws are too many to send.

    Returns:
        Tensor: Scalar; exactly 0 and connected to the graph with less than two classes or without hard pixels.
    """
    classes, device = len(prototypes), features.device
    with torch.autocast(device.type, enabled=False):
        pools = class_pools(label, hard, classes)
        sampler = NegativeSampler(pools, prototypes, temperature)
        if generator is not None and generator.device != device:
            generator = _generator_on(device, generator)
        sets = 1 if share_negatives else num_anchors  # of negatives per class
        # In float64: float32 would prefer some of a hundred thousand pixels to others.
        u_anchor, u = (torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
                       for shape in ((classes, num_anchors), (classes * sets, num_negatives)))

        used = sampler.trainable()
        anchors = features.index_select(0, anchor_pixels(u_anchor, pools).flatten())
        anchors = anchors.to(torch.promote_types(features.dtype, torch.float32)).unflatten(0, (classes, num_anchors))
        # where: the pixel that stands in for no anchor may not be finite.
        anchors = F.normalize(torch.where(used[:, None, None], anchors, 0), dim=2, eps=1e-12)
        positive = (anchors * F.normalize(prototypes.detach().to(anchors.dtype), dim=1, eps=1e-12)[:, None]).sum(2)

        grouped = anchors.detach().reshape(classes * sets, num_anchors // sets, -1)
        value, gradient = (x.reshape(classes, num_anchors, *x.shape[2:])
                           for x in negative_logsumexp(grouped, features.detach(), sampler, u, temperature))
        # Adds 0, and the gradient.
        negative = value + ((anchors - anchors.detach()) * gradient).sum(2)
        # -log(e^p / (e^p + e^n)) = log(1 + e^(n - p))
        per_class = F.softplus(negative - positive / temperature).mean(1)
        return torch.where(used, per_class, 0).sum() / (pools.count > 0).sum().clamp(min=1)
