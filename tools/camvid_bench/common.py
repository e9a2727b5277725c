"""What the parts of the CamVid benchmark share: its error, and files that appear whole."""
import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Iterator, Optional

ROOT = Path(__file__).resolve().parents[2]


class UserError(Exception):
    """Something the caller has to change; printed without a traceback."""


def write(path: Path, text: str) -> None:
    """Appears whole or not at all."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text)
    part.replace(path)


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
