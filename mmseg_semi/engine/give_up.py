"""How the tools read a config and its options, and how they end when a setting, a path or the data are wrong."""
import argparse
import contextlib
import pickle
import sys
import traceback
from itertools import dropwhile
from pathlib import Path
from typing import NoReturn, Optional

from mmengine.config import Config, DictAction

#: What wrong settings and data raise, here, in mmengine and in mmseg.
MISTAKES = (ValueError, TypeError, KeyError, OSError, ImportError, SyntaxError, AssertionError, FloatingPointError,
            pickle.UnpicklingError)
#: Of these the text alone says little.
TELLS_LITTLE = (KeyError, SyntaxError)
#: The one assertion of mmseg that a user meets before anything works: there is no such list of images.
MISSING_LIST = 'Failed to load `ann_file`'

#: In the text of an error that a loader's worker met, before that error as the worker would have printed it.
WORKER = 'Original Traceback (most recent call last):'


class Options(DictAction):
    """mmengine's action for ``--cfg-options`` whose mistakes are told as argparse tells others."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Stores the options as a dict."""
        wrong = [value for value in values if '=' not in value]
        if wrong:
            raise argparse.ArgumentError(self, f'expected KEY=VALUE, found {wrong[0]!r}; put a value with blanks in '
                                         'quotes: key="[(a, b)]"')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:  # brackets that do not close
            raise argparse.ArgumentError(self, str(error)) from error


def positive(text: str) -> int:
    """``type`` of an option that takes a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number from 1 on, found {text!r}')
    return int(text)


def read_config(path: str) -> Config:
    """A config file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it, or a file of its ``_base_``, cannot be read.
    """
    try:
        return Config.fromfile(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a config is a program
        raise ValueError(f'{path}, or a file of its _base_, cannot be read: {type(error).__name__}: {error}') from error


def is_of_data(error: BaseException) -> bool:
    """Whether the data or the learning rate are to blame whenever it comes: a bad file, a loss that is not finite."""
    return isinstance(error, FloatingPointError) or WORKER in str(error)


def text_of(error: BaseException) -> str:
    """What went wrong, in one line where the error says it in one; of a loader's worker its own message."""
    text = str(error)
    if WORKER in text:
        lines = text.rstrip().splitlines()
        frame = max(i for i, line in enumerate(lines) if line.startswith('  File '))
        message = dropwhile(lambda line: line.startswith(' '), lines[frame + 1:])  # behind the source line
        told = ' '.join(line.strip() for line in message)
        return told if isinstance(error, TELLS_LITTLE) else told.partition(': ')[2]
    return f'{type(error).__name__}: {text}' if isinstance(error, TELLS_LITTLE) else text


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
    told = text_of(error)
    print(f'error: {told}', file=sys.stderr)
    cfg = cfg or Config()
    root, is_missing = cfg.get('data_root'), isinstance(error, (FileNotFoundError, AssertionError))
    if is_missing and root and root in told and cfg.get('data_hint'):
        print(f'How to make it: {cfg.data_hint}', file=sys.stderr)
    if cfg.get('work_dir'):
        file = Path(cfg.work_dir) / 'traceback.txt'
        with contextlib.suppress(OSError):  # a full disk may be what is told
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
            print(f'Where it happened: {file}', file=sys.stderr)
    raise SystemExit(2)
