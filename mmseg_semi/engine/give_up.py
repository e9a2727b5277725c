"""How the tools end when a setting, a path or the data are wrong."""
import sys
import traceback
from pathlib import Path
from typing import NoReturn, Optional, Union

#: What wrong settings and data raise, here and in mmengine.
MISTAKES = (ValueError, TypeError, KeyError, FileNotFoundError, SyntaxError)


def give_up(error: BaseException, folder: Optional[Union[str, Path]] = None) -> NoReturn:
    """Tells a mistake in one line and leaves the program with status 2.

    Args:
        error (BaseException): One that is being handled.
        folder (str or Path, optional): Where the traceback is kept, as ``traceback.txt``.

    Raises:
        SystemExit: Always.
    """
    told = str(error) if not isinstance(error, (KeyError, SyntaxError)) else f'{type(error).__name__}: {error}'
    print(f'error: {told}', file=sys.stderr)
    if folder is not None:
        file = Path(folder) / 'traceback.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
        print(f'Where it happened: {file}', file=sys.stderr)
    raise SystemExit(2)
