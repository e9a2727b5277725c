"""First prototypes: pixels of the labeled images, clustered within each class (PCR spec section 3)."""
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, Iterable, Tuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmseg_semi.models.points import PointReader


class PixelReservoir:
    """A uniform sample of at most ``capacity`` features per class from a stream of unknown length.

    Args:
        num_classes (int): C.
        capacity (int): Features kept per class.
        generator (torch.Generator): CPU generator.
    """

    def __init__(self, num_classes: int, capacity: int, generator: torch.Generator) -> None:
        self.capacity, self.generator = capacity, generator
        self.features: Dict[int, list] = {c: [] for c in range(num_classes)}
        self.seen = [0] * num_classes

    def __getstate__(self) -> dict:
        """For the rank that merges: one tensor [n, D] per class, since thousands of small ones are slow to pickle.

        The generator stays: torch before 2.4 cannot pickle it, and only the merging rank draws from then on.
        """
        stacked = {label: torch.stack(kept) if kept else [] for label, kept in self.features.items()}
        return {**vars(self), 'features': stacked, 'generator': None}

    def __setstate__(self, state: dict) -> None:
        """From another rank."""
        vars(self).update(state, features={label: list(kept) for label, kept in state['features'].items()})

    def add(self, label: int, features: Tensor) -> None:
        """Adds features [P, D] of one class (Vitter's algorithm R)."""
        kept = self.features[label]
        for feature in features:
            self.seen[label] += 1
            if len(kept) < self.capacity:
                kept.append(feature.clone())  # not a view: it would keep its whole block
                continue
            slot = int(torch.randint(self.seen[label], (), generator=self.generator))
            if slot < self.capacity:
                kept[slot] = feature.clone()

    def merge(self, other: 'PixelReservoir') -> None:
        """Joins another rank's sample; each side keeps a share in proportion to what it saw."""
        for label, mine in self.features.items():
            theirs, total = other.features[label], self.seen[label] + other.seen[label]
            if len(mine) + len(theirs) > self.capacity:
                share = round(self.capacity * self.seen[label] / total)
                order = torch.randperm(len(mine), generator=self.generator).tolist()
                mine = [mine[i] for i in order[:share]]
                order = torch.randperm(len(theirs), generator=self.generator).tolist()
                theirs = [theirs[i] for i in order[:self.capacity - len(mine)]]
            self.features[label], self.seen[label] = mine + theirs, total


def sample_pixels(label_map: Tensor, num_classes: int, per_class: int,
                  generator: torch.Generator, ignore_index: int = 255) -> Iterable[Tuple[int, Tensor, Tensor]]:
    """Random pixels of each class present in a label map.

    Args:
        label_map (Tensor): [H, W] int64 on the CPU; values outside 0..C-1 are skipped.
        num_classes (int): C.
        per_class (int): At most this many pixels per class.
        generator (torch.Generator): CPU generator.
        ignore_index (int): Skipped too, also if it is a class. Defaults to 255.

    Yields:
        tuple[int, Tensor, Tensor]: The class, and rows and columns [P] int64.
    """
    flat = label_map.flatten()
    for label in flat.unique().tolist():
        if label == ignore_index or label >= num_classes:
            continue
        where = (flat == label).nonzero().squeeze(1)
        chosen = where[torch.randperm(len(where), generator=generator)[:per_class]]
        yield label, chosen // label_map.shape[1], chosen % label_map.shape[1]


@torch.no_grad()
def collect(samples: Iterable[Tuple[Tensor, Tensor]],
            feature_of: Callable[[Tensor], Tensor],
            num_classes: int,
            align_corners: bool,
            generator: torch.Generator,
            per_image: int = 256,
            capacity: int = 20000,
            ignore_index: int = 255) -> PixelReservoir:
    """Gathers raw pixel features with their ground truth.

    Args:
        samples (Iterable[tuple[Tensor, Tensor]]): Network inputs [1, 3, H', W'] and label maps [H, W] int64; the two
            may differ in size, a pixel is read at its relative position.
        feature_of (Callable): Maps the input to its feature, [1, D, h, w].
        num_classes (int): C.
        align_corners (bool): As the head's resize.
        generator (torch.Generator): CPU generator.
        per_image (int): Pixels per image and class. Defaults to 256.
        capacity (int): Pixels per class in all. Defaults to 20000.
        ignore_index (int): Label that the head ignores. Defaults to 255.

    Returns:
        PixelReservoir: float32 features on the CPU; features that are not finite are left out.
    """
    reservoir = PixelReservoir(num_classes, capacity, generator)
    for image, label_map in samples:
        feature = feature_of(image)
        for label, rows, columns in sample_pixels(label_map.cpu(), num_classes, per_image, generator, ignore_index):
            values = PointReader(rows, columns, tuple(label_map.shape), align_corners).read(feature)[0].cpu()
            reservoir.add(label, values[torch.isfinite(values).all(dim=1)])
    return reservoir


def cluster(reservoir: PixelReservoir, num_prototypes: int, channels: int, seed: int) -> Tuple[Tensor, Tensor]:
    """k-means within each class on unit features; a prototype is the mean of its cluster's raw features.

    With fewer distinct samples than K, the samples themselves, filled up with copies of the last. Without any, the
    class is invalid.

    Args:
        reservoir (PixelReservoir): From :func:`collect`.
        num_prototypes (int): K.
        channels (int): D.
        seed (int): Of k-means++.

    Returns:
        tuple[Tensor, Tensor]: Bank [C, K, D] float32 and ``class_valid`` [C] bool.
    """
    # Here, for its half second of import would be paid by every tool and every worker of every training.
    from joblib import cpu_count
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits
    classes = [label for label, features in reservoir.features.items() if features]
    bank = torch.zeros(len(reservoir.features), num_prototypes, channels)
    valid = torch.zeros(len(reservoir.features), dtype=torch.bool)
    valid[classes] = True

    def first_prototypes(label: int) -> Tensor:
        return _cluster_class(torch.stack(reservoir.features[label]), label, num_prototypes, seed)

    # Whatever OMP_NUM_THREADS says (1 below torchrun): the other ranks wait. A class takes up to 200 MB. KMeans sets
    # BLAS to one thread and back, which is not for threads to do side by side, so BLAS has one already.
    threads = min(cpu_count(), 16)
    with threadpool_limits(1, 'blas'), warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # Features of different norm may share one direction, so that fewer than K directions exist.
        warnings.simplefilter('ignore', ConvergenceWarning)
        for label, prototypes in zip(classes, pool.map(first_prototypes, classes), strict=True):
            bank[label] = prototypes
    return bank, valid


def _cluster_class(raw: Tensor, label: int, num_prototypes: int, seed: int) -> Tensor:
    """Prototypes [K, D] of one class from its features [n, D]."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits
    distinct = torch.unique(raw, dim=0)
    if len(distinct) <= num_prototypes:
        if len(distinct) < num_prototypes:
            print_log(f'Prototypes: class {label} has {len(distinct)} distinct labeled pixels for {num_prototypes} '
                      'prototypes; the last one fills up.', 'current', level=logging.WARNING)
        return torch.cat([distinct, distinct[-1:].expand(num_prototypes - len(distinct), -1)])
    unit = torch.nn.functional.normalize(raw, dim=1, eps=1e-12).numpy()
    with threadpool_limits(1, 'openmp'):  # threads that share a class add its pixels in any order: nothing repeats
        assigned = KMeans(num_prototypes, n_init=10, max_iter=100, random_state=seed).fit(unit).labels_
    assigned = torch.from_numpy(assigned).long()
    counts = torch.bincount(assigned, minlength=num_prototypes)
    sums = torch.zeros(num_prototypes, raw.shape[1]).index_add_(0, assigned, raw)
    means = sums / counts.clamp(min=1)[:, None]
    filled = int((counts > 0).nonzero()[-1])
    return torch.where((counts > 0)[:, None], means, means[filled])
