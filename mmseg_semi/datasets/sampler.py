"""One index stream that feeds labeled and unlabeled images in fixed counts."""
import logging
from typing import Iterator, Optional, Sequence

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmseg_semi.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class LabeledUnlabeledSampler(Sampler):
    """Yields ``n_l`` labeled indices, then ``n_u`` unlabeled indices, over and over.

    Set ``batch_size = n_l + n_u`` of the data loader. Each source is an endless row of shuffled passes with a generator
    of its own per pass, and rank ``r`` of ``W`` takes every ``W``-th entry from entry ``r`` on. The stream is a pure
    function of (seed, rank, W, :attr:`position`), which is all a resumed run has to know.

    - ``infinite=True``, for iteration loops: no image of a source comes back before the source is used up, and a batch
      may span two passes. ``len`` is one pass over the unlabeled images, rounded down to whole batches.
    - ``infinite=False``, for epoch loops: an epoch is one pass over the unlabeled images without the last incomplete
      batch. The labeled stream is not cut at the end of an epoch but goes on in the next one, so that every labeled
      image is used even when there are more of them than unlabeled ones.

    Args:
        dataset (ConcatDataset): Two sources, ``[labeled, unlabeled]``.
        counts (Sequence[int]): ``(n_l, n_u)`` images per GPU and step, both positive. When ``n_l * W`` exceeds the
            labeled set, images repeat inside one step; a warning tells so.
        seed (int, optional): Non-negative. None draws one and shares it among the ranks; fix it to make a resumed run
            see the same images.
        infinite (bool): See above. Defaults to True.

    Raises:
        TypeError: If ``dataset`` is not a concatenation.
        ValueError: If it has not two sources, one is empty, ``counts`` are not two positive integers, or a finite
            epoch would not hold a single step.
    """

    def __init__(self, dataset, counts: Sequence[int], seed: Optional[int] = None, infinite: bool = True) -> None:
        self.counts = self.read_counts(counts)
        self.infinite = infinite
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.sizes = self._source_sizes(dataset)
        self.position = 0

        step_l, step_u = (c * self.world_size for c in self.counts)
        if not infinite and self.sizes[1] < step_u:
            raise ValueError(f'infinite=False: {self.sizes[1]} unlabeled images do not fill one step of '
                             f'{self.counts[1]} x {self.world_size} GPUs; lower counts or set infinite=True')
        if self.sizes[0] < step_l:
            print_log(f'{self.sizes[0]} labeled images for steps of {self.counts[0]} x {self.world_size} GPUs: '
                      'images repeat inside a step', logger='current', level=logging.WARNING)
        self._steps = max(self.sizes[1] // step_u, 1)
        # A finite pass stops at the last full batch, so every rank gets the same share of it.
        self._pass_lengths = (self.sizes[0], self.sizes[1] if infinite else self._steps * step_u)

    @staticmethod
    def read_counts(counts: Sequence[int]) -> tuple:
        """``counts`` as a tuple.

        Raises:
            ValueError: If they are not two positive integers.
        """
        found = tuple(counts) if isinstance(counts, (list, tuple)) else counts
        if not isinstance(found, tuple) or len(found) != 2 or any(type(c) is not int or c < 1 for c in found):
            raise ValueError(f'counts must be two positive integers (labeled, unlabeled), got {counts!r}')
        return found

    @staticmethod
    def _source_sizes(dataset) -> tuple:
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        ends = getattr(dataset, 'cumulative_sizes', None)
        if ends is None:
            raise TypeError('LabeledUnlabeledSampler needs a ConcatDataset of [labeled, unlabeled], '
                            f'got {type(dataset).__name__}')
        if len(ends) != 2:
            raise ValueError(f'LabeledUnlabeledSampler needs two sources [labeled, unlabeled], got {len(ends)}')
        sizes = (ends[0], ends[1] - ends[0])
        if min(sizes) < 1:
            raise ValueError(f'both sources need images, got {sizes[0]} labeled and {sizes[1]} unlabeled')
        return sizes

    def _permutation(self, source: int, number: int) -> np.ndarray:
        # RandomState's shuffle is frozen by numpy's compatibility policy: a resume under another version still agrees.
        bits = np.random.MT19937(np.random.SeedSequence([self.seed, number, source]))
        return np.random.RandomState(bits).permutation(self.sizes[source])

    def _stream(self, source: int, start: int) -> Iterator[int]:
        """This rank's endless indices of one source from its entry ``start`` on; holds one permutation at a time."""
        length, shift = self._pass_lengths[source], source * self.sizes[0]
        while True:
            number, offset = divmod(self.rank + start * self.world_size, length)
            indices = self._permutation(source, number)[offset:length:self.world_size]
            for index in indices:
                yield int(index) + shift
            start += len(indices)
            del indices  # before the next permutation is drawn

    def __iter__(self) -> Iterator[int]:
        """Yields indices into the concatenation from :attr:`position` to the end of its epoch, or for ever."""
        n_l, n_u = self.counts
        step, phase = divmod(self.position, n_l + n_u)
        labeled = self._stream(0, step * n_l + min(phase, n_l))
        unlabeled = self._stream(1, step * n_u + max(phase - n_l, 0))
        end = None if self.infinite else self.position + len(self) - self.position % len(self)
        position = self.position
        while end is None or position < end:
            yield next(labeled if position % (n_l + n_u) < n_l else unlabeled)
            position += 1

    def skip(self, num_samples: int) -> None:
        """Jumps to an absolute position, counted in this rank's indices from the start of training.

        The cost does not depend on the position. Called by the loops of newer mmengine releases on resume.

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        if num_samples < 0:
            raise ValueError(f'num_samples must not be negative, got {num_samples}')
        self.position = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Moves a finite sampler to the start of an epoch; an infinite one has no epochs."""
        if not self.infinite:
            self.position = epoch * len(self)

    def __len__(self) -> int:
        """Indices per rank in one pass over the unlabeled images, a multiple of ``n_l + n_u``."""
        return self._steps * sum(self.counts)
