"""What the parts of the data set check share: its error, names that can be printed, files that appear whole."""
import os
from pathlib import Path


class UserError(Exception):
    """Something the caller has to change; printed in one line."""


def one_line(error: BaseException) -> str:
    """An exception in one line, with its type unless it is a plain message to the user."""
    text = ' '.join(str(error).split())
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'


def shown(name: str) -> str:
    """A file name that can be printed: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def write(path: Path, text: str) -> None:
    """Appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        part.write_text(text, encoding='utf-8')
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
