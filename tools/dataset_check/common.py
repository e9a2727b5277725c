"""What the parts of the data set check share: its error, and names that can be printed."""
import os


class UserError(Exception):
    """Something the caller has to change; printed in one line."""


def one_line(error: BaseException) -> str:
    """An exception in one line, with its type unless it is a plain message to the user."""
    text = ' '.join(str(error).split())
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'


def shown(name: str) -> str:
    """A file name that can be printed: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode('utf-8', 'backslashreplace')
