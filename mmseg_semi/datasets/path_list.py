"""A million image paths in one piece of memory."""
import os
import os.path as osp
from typing import Sequence, Union

import numpy as np


class PathList(Sequence):
    """Records ``dict(img_path=..., seg_fields=[])`` of unlabeled images, kept as one byte string and two arrays.

    A list of dicts costs half a gigabyte for a million images, and each worker copies what it touches, since reading a
    Python object writes its reference count. Here workers read the memory of their parent, and a pickle (spawned
    workers) is three arrays.

    Args:
        root (str): Folder before every name.
        names (Sequence[str]): Paths below it.
    """

    def __init__(self, root: str, names: Sequence[str]) -> None:
        self.root = root
        # '\0' is the one character that no file name can hold; fsencode keeps names that are no valid UTF-8.
        self.buffer = np.frombuffer(os.fsencode(''.join(f'{name}\0' for name in names)), dtype=np.uint8)
        self.ends = np.flatnonzero(self.buffer == 0)
        self.starts = np.concatenate([np.zeros(1, self.ends.dtype), self.ends[:-1] + 1]) if len(names) else self.ends

    def take(self, indices: np.ndarray) -> 'PathList':
        """The records at ``indices``, which may repeat; names are shared, not copied."""
        other = object.__new__(type(self))
        other.root, other.buffer = self.root, self.buffer
        other.starts, other.ends = self.starts[indices], self.ends[indices]
        return other

    def path(self, index: int) -> str:
        """The path of one image."""
        return osp.join(self.root, os.fsdecode(self.buffer[self.starts[index]:self.ends[index]].tobytes()))

    def __getitem__(self, index: Union[int, slice]) -> Union[dict, 'PathList']:
        """One record, made anew, or a part of the list."""
        return self.take(index) if isinstance(index, slice) else dict(img_path=self.path(index), seg_fields=[])

    def __len__(self) -> int:
        return len(self.ends)
