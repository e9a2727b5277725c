"""What the parts of the CamVid benchmark share: its error, its files, its locks."""
import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Iterator, Optional

ROOT = Path(__file__).resolve().parents[2]


class UserError(Exception):
    """Something the caller has to change; printed without a traceback."""


def read_json(path: Path) -> Optional[dict]:
    return json.loads(path.read_text()) if path.is_file() else None


@contextlib.contextmanager
def locked(folder: Path, wait: bool) -> Iterator[Optional[int]]:
    """Holds the lock of a folder; yields its descriptor, or None if another process holds it and ``wait`` is false."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)
