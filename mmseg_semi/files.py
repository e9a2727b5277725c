"""Files that appear under their names only when they are whole."""
import contextlib
import os
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when the block ends well; when it fails, what was written vanishes.

    A process that is killed leaves a hidden ``*.part*`` file beside ``path`` and never half of ``path``.

    Args:
        path (Path): The file to be; folders above it are made.

    Yields:
        Path: In the same folder, unique to this process, with the suffix of ``path``: writers go by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text that appears whole, also if the power fails. File names that are no UTF-8 keep their bytes."""
    with whole(path) as part, open(part, 'w', encoding='utf-8', errors='surrogateescape') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
