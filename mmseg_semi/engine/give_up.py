"""How the tools end when a setting, a path or the data are wrong."""
import sys
import traceback
from pathlib import Path
from typing import NoReturn, Optional

from mmengine.config import Config

#: What wrong settings and data raise, here, in mmengine and in mmseg.
MISTAKES = (ValueError, TypeError, KeyError, FileNotFoundError, SyntaxError, AssertionError, FloatingPointError)
#: The one assertion of mmseg that a user meets before anything works: there is no such list of images.
MISSING_LIST = 'Failed to load `ann_file`'


def give_up(error: BaseException, cfg: Optional[Config] = None) -> NoReturn:
    """Tells a mistake in one line and leaves the program with status 2.

    Args:
        error (BaseException): One of ``MISTAKES`` that is being handled.
        cfg (Config, optional): Its ``work_dir`` keeps the traceback, as ``traceback.txt``; where a file below its
            ``data_root`` is missing, its ``data_hint`` says how the data are made.

    Raises:
        SystemExit: Always, but for an assertion that tells a user nothing: that one is raised again.
    """
    if isinstance(error, AssertionError) and MISSING_LIST not in str(error):
        raise error
    told = str(error) if not isinstance(error, (KeyError, SyntaxError)) else f'{type(error).__name__}: {error}'
    print(f'error: {told}', file=sys.stderr)
    cfg = cfg or Config()
    root, is_missing = cfg.get('data_root'), isinstance(error, (FileNotFoundError, AssertionError))
    if is_missing and root and root in told and cfg.get('data_hint'):
        print(f'How to make it: {cfg.data_hint}', file=sys.stderr)
    if cfg.get('work_dir'):
        file = Path(cfg.work_dir) / 'traceback.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
        print(f'Where it happened: {file}', file=sys.stderr)
    raise SystemExit(2)
