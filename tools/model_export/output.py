"""Outputs appear under their names only when they are whole and verified."""
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator


def check_free(out: Path) -> None:
    """Looks at where an output is to land, before the long work.

    Raises:
        FileExistsError: If something is there already.
        NotADirectoryError: If a file is where a folder would have to be.
    """
    if out.exists() or out.is_symlink():
        raise FileExistsError(f'--out {out} exists already; remove it or choose another name')
    for parent in out.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise NotADirectoryError(f'--out {out}: {parent} is a file; expected a folder')
            break


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yields a path of the same name in a folder of its own; it moves to ``out`` if the block ends well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.part', dir=out.parent))
    try:
        yield folder / out.name
        check_free(out)  # another process may have been faster
        os.replace(folder / out.name, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
