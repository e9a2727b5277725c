"""Random numbers of a sample that its place in the training decides, not its worker or what came before."""
import random
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmseg_semi.registry import DATA_SAMPLERS

# First of the numbers that seed: a sample's and a step's are never the same.
SAMPLE, STEP = 1, 2


def seed_all(*numbers: int) -> None:
    """Seeds ``random``, numpy's global generator and torch's, on the CPU and on GPUs, from non-negative integers."""
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


class Draw(int):
    """Index of a sample that carries the seed of its random numbers.

    Attributes:
        seed (tuple[int, ...]): (seed of the run, rank, place in this rank's stream).
    """
    seed: Tuple[int, ...]

    def __new__(cls, index: int, seed: Tuple[int, ...]) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple:
        return Draw, (int(self), self.seed)


class SeededFetch:
    """Reads samples as ``dataset[index]`` does, each with the random numbers of its :class:`Draw`.

    torch's loader calls it as the dataset's ``__getitems__``, in the worker.
    """

    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> List[dict]:
        samples = []
        for index in indices:
            if isinstance(index, Draw):  # not those of another loader of the same dataset
                seed_all(SAMPLE, *index.seed)
            samples.append(self.dataset[int(index)])
        return samples


@DATA_SAMPLERS.register_module()
class ReplaySampler(Sampler):
    """Hands on the indices of another sampler, and with each the seed of its sample's random numbers.

    Crops, flips, colors and guides then depend on (seed, rank, place in the stream) alone: they are the same for any
    number of workers, and a resumed run goes on as one that was never stopped. ``ReplayHook`` does the same for what
    is drawn in the step. The dataset gets a ``__getitems__``; reading it by index stays as it is. Not replayed are the
    guides of :class:`OnlineGuidedDataset` with workers: they come from a table that training writes meanwhile.

    Args:
        dataset (Dataset): Map-style, without a ``__getitems__`` of its own.
        sampler (dict): The other sampler, without ``dataset``.
        seed (int, optional): Also that of the other sampler, unless it has its own. None draws one and shares it among
            the ranks; fix it to make a resumed run see the same samples.
    """

    def __init__(self, dataset, sampler: dict, seed: Optional[int] = None) -> None:
        self.rank, _ = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=self.seed))
        self.position = 0
        if hasattr(self.sampler, 'skip'):  # by which the loops of newer mmengine releases know that they may call it
            self.skip = self._skip
        if hasattr(self.sampler, 'set_epoch'):
            self.set_epoch = self._set_epoch
        dataset.__getitems__ = SeededFetch(dataset)

    def __iter__(self) -> Iterator[Draw]:
        """Yields the indices; another pass of a finite sampler goes on with the seeds."""
        position = self.position
        for index in self.sampler:
            yield Draw(index, (self.seed, self.rank, position))
            position += 1
        self.position = position

    def _skip(self, num_samples: int) -> None:
        """Jumps to an absolute position, counted in this rank's indices from the start of training."""
        self.sampler.skip(num_samples)
        self.position = num_samples

    def _set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch."""
        self.sampler.set_epoch(epoch)
        self.position = epoch * len(self.sampler)

    def __len__(self) -> int:
        """That of the other sampler."""
        return len(self.sampler)
