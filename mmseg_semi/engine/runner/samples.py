"""Samples of a dataset in a given order, made by worker processes while the network is at the one before."""
import traceback
from typing import Any, Generator, NamedTuple, Optional, Sequence

import cv2
import torch
from torch.utils.data import DataLoader

WORKERS = 2  # as mmseg's configs


class Failed(NamedTuple):
    """What a worker hands over in place of a sample: its own exception need not survive the way."""
    kind: type
    message: str
    trace: str


class Guarded:
    """A dataset that returns :class:`Failed` with the name of the file in place of an error."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:  # decoders and transforms raise whatever they like
            path = str(self.dataset.get_data_info(index)['img_path'])
            message = str(error) if path in str(error) else f'cannot read {path}: {type(error).__name__}: {error}'
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            return Failed(kind, message, traceback.format_exc())


def worker_number(num_workers: Optional[int], plan_cfg: Optional[dict]) -> int:
    """The number given, else that of the plan's validation, else 2.

    Raises:
        ValueError: If it is no whole number from 0 on.
    """
    if num_workers is None:
        num_workers = ((plan_cfg or {}).get('val_dataloader') or {}).get('num_workers', WORKERS)
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f'num_workers must be a whole number from 0 on, found {num_workers!r}')
    return num_workers


def read_samples(dataset, indices: Sequence[int], num_workers: int) -> Generator[Any, None, None]:
    """``dataset[i]`` for each index, in their order; to be closed, which ends the workers (``contextlib.closing``).

    Args:
        dataset: With ``get_data_info``, as mmengine's.
        indices (Sequence[int]): Which samples.
        num_workers (int): Processes that make them; 0: this one does.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If anything else fails; the message names the image.
    """
    loader = DataLoader(
        Guarded(dataset), batch_size=None, sampler=list(indices), num_workers=min(num_workers, len(indices)),
        collate_fn=_as_it_is, worker_init_fn=_one_thread,
        generator=torch.Generator())  # the global one goes on as if nothing had been read
    for sample in loader:
        if isinstance(sample, Failed):
            raise sample.kind(sample.message) from RuntimeError(sample.trace)
        yield sample


def _as_it_is(sample: Any) -> Any:
    return sample


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
