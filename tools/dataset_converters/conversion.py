"""What the converters share: work in parallel that goes on where it stopped, whole files, the summary."""
import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import sys
import textwrap
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmengine.utils import ProgressBar
from PIL import Image, PngImagePlugin

Image.MAX_IMAGE_PIXELS = None  # the user's own pictures, satellite scenes among them, are no bombs
KEY = 'mmseg_semi'  # of the PNG text that tells our masks from others


class Mask(NamedTuple):
    """What became of one mask."""
    name: str
    sha256: str  # of height, width and labels, not of the file: PNG writers differ
    counts: np.ndarray  # pixels per label, int64 [256]
    state: str  # 'written', 'kept', 'read' or 'different'


# ---- command line -----------------------------------------------------------------------------------------------


def make_parser(doc: str) -> argparse.ArgumentParser:
    """The options that all converters have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, help='data root to make, OUT above')
    parser.add_argument('--workers', type=positive, default=min(8, os.cpu_count() or 1), help='processes')
    return parser


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, found {text!r}')
    return int(text)


def guard(main: Callable[[], None]) -> int:
    """Runs a converter; returns the exit status: 0 done, 2 a mistake of the caller, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except (ValueError, OSError) as error:
        denied = getattr(error, 'errno', None) in (errno.EACCES, errno.EPERM, errno.EROFS)
        print(f'error: {error}' + ('; choose a folder that can be written with --out' if denied else ''),
              file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print('error: a worker process died, out of memory perhaps; continue with --workers 1', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; the same command continues', file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder, which is made if need be.

    Raises:
        ValueError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f'another converter works in {folder}; wait until it is done') from None
    finally:
        os.close(descriptor)


# ---- files ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which becomes ``path`` when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_lines(path: Path, lines: Sequence[str]) -> None:
    with whole(path) as part:
        part.write_text(''.join(f'{line}\n' for line in lines))


def read_lines(path: Path) -> List[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def require(paths: Sequence[Path], what: str, source: str) -> None:
    """Raises FileNotFoundError that counts and names what is missing, and says where it comes from."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ', '.join(map(str, missing[:3])) + (', ...' if len(missing) > 3 else '')
        raise FileNotFoundError(f'{len(missing)} of {len(paths)} {what} missing: {names}; {source}')


def check_counts(found: Dict[str, int], expected: Dict[str, int], source: str) -> None:
    """Raises ValueError if the parts are not as large as published."""
    if found != expected:
        numbers = ', '.join(f'{part} {found[part]} (expected {expected[part]})' for part in expected)
        raise ValueError(f'images found: {numbers}; {source}')


def link(folder: Path, target: Path) -> None:
    """Makes ``target`` a link to ``folder`` unless it is that folder already."""
    if target.exists() and target.samefile(folder):
        return
    if target.is_symlink() or target.exists():
        raise FileExistsError(f'{target} exists and is not {folder}; remove it or choose another --out')
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(folder.resolve())


# ---- masks ------------------------------------------------------------------------------------------------------


def digest(labels: np.ndarray) -> str:
    """SHA-256 of the size and the labels, uint8 [H, W]."""
    height, width = labels.shape
    return hashlib.sha256(f'{height}x{width}:'.encode() + np.ascontiguousarray(labels).tobytes()).hexdigest()


def read_labels(path: Path) -> np.ndarray:
    """The indices of a gray or palette PNG, uint8 [H, W]; ValueError if it is anything else."""
    try:
        with Image.open(path) as image:
            mode, labels = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read: {error}; unpack it again') from error
    if mode not in ('L', 'P'):
        raise ValueError(f'{path} has mode {mode}; expected a mask of indices, mode L or P')
    return labels


def check_labels(labels: np.ndarray, source: Path, image: Path, highest: int, ignore: Optional[int] = 255) -> None:
    """Raises ValueError if a mask, uint8 [H, W], does not fit its image or holds a label above ``highest``."""
    with Image.open(image) as picture:
        size = picture.size[::-1]
    if labels.shape != size:
        raise ValueError(f'{source} is {labels.shape}, its image {image} is {size} (height, width); unpack both again')
    wrong = [label for label in np.flatnonzero(np.bincount(labels.ravel())) if label > highest and label != ignore]
    if wrong:
        raise ValueError(f'{source} holds labels {[int(label) for label in wrong[:5]]}; expected 0..{highest}' +
                         (f' or {ignore}' if ignore is not None else ''))


def store(path: Path, name: str, recipe: str, make: Callable[[], np.ndarray]) -> Mask:
    """Writes the labels that ``make`` returns, uint8 [H, W], unless the file is there already.

    A mask of ours carries the recipe and the digest of its labels in a PNG text: where both fit, it is kept and nothing
    is made. A mask from elsewhere is never overwritten: it is kept if it is the same, else reported as different.
    """
    tag, labels = _read_tagged(path)
    if labels is not None and tag == f'{recipe} {digest(labels)}':
        return Mask(name, digest(labels), np.bincount(labels.ravel(), minlength=256), 'kept')
    fresh = make()
    sha, counts = digest(fresh), np.bincount(fresh.ravel(), minlength=256)
    if tag is None and path.exists() and path.stat().st_size:
        same = labels is not None and digest(labels) == sha
        return Mask(name, sha, counts, 'kept' if same else 'different')
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, f'{recipe} {sha}')
    with whole(path) as part:
        Image.fromarray(fresh).save(part, format='PNG', pnginfo=text)
    return Mask(name, sha, counts, 'written')


def read_tag(path: Path) -> Optional[str]:
    """Recipe and digest that :func:`store` wrote into a mask; None if there is no mask of ours. No pixel is decoded."""
    try:
        with Image.open(path) as image:
            return image.info.get(KEY)
    except (OSError, SyntaxError):
        return None


def _read_tagged(path: Path) -> Tuple[Optional[str], Optional[np.ndarray]]:
    """Our text in a mask and its labels, None for what is not there or cannot be read."""
    if not path.is_file():
        return None, None
    tag = None
    try:
        with Image.open(path) as image:
            tag = image.info.get(KEY)
            return tag, np.array(image) if image.mode in ('L', 'P') else None
    except (OSError, SyntaxError):
        return tag, None


def parallel(work: Callable, items: Sequence, workers: int) -> List:
    """``work(item)`` for all items, in order, under a progress bar.

    After Ctrl-C or an error the items under way are finished, so that no half file stays behind.
    """
    bar, results = ProgressBar(len(items), file=sys.stderr), []
    with contextlib.ExitStack() as stack:
        stack.callback(sys.stderr.write, '\n')
        outcomes = map(work, items)
        if workers > 1:
            pool = ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent)
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            outcomes = pool.map(work, items, chunksize=4)
        for outcome in outcomes:
            results.append(outcome)
            bar.update()
    return results


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---- the summary ------------------------------------------------------------------------------------------------


def summarize(out: Path, recipe: str, parts: Dict[str, List[Mask]], classes: Sequence[str],
              first: int = 0, ignore: int = 255) -> dict:
    """Prints how many pixels each class has, and one digest per part; writes both to ``out/<recipe>.json``.

    The digest covers the names, sizes and labels of all masks, so two machines with equal digests hold equal masks.

    Args:
        out (Path): Data root.
        recipe (str): Name and number, such as 'voc_aug-1'.
        parts (dict[str, list[Mask]]): Per part such as 'train'.
        classes (Sequence[str]): Names of the labels from ``first`` on.
        first (int): Label of the first class. Defaults to 0.
        ignore (int): Label without class. Defaults to 255.

    Raises:
        ValueError: If masks from elsewhere differ from those that the archives give.
    """
    different = [mask.name for masks in parts.values() for mask in masks if mask.state == 'different']
    if different:
        total = sum(map(len, parts.values()))
        raise ValueError(f'{len(different)} of {total} masks in {out} were made by something else and differ from what '
                         f'the archives give, the first is {different[0]}; they were left alone: move them away and '
                         'run the same command again')
    summary = dict(recipe=recipe, parts={})
    for part, masks in parts.items():
        pixels = sum(mask.counts for mask in masks)
        lines = ''.join(f'{mask.name} {mask.sha256}\n' for mask in sorted(masks, key=lambda mask: mask.name))
        named = {name: int(pixels[first + i]) for i, name in enumerate(classes)}
        named['(ignored)'] = int(pixels[ignore])
        summary['parts'][part] = dict(
            masks=len(masks), sha256=hashlib.sha256(lines.encode()).hexdigest(), pixels=named)
        states = ', '.join(f'{count} {state}' for state, count in sorted(Counter(m.state for m in masks).items()))
        print(f'{part}: {len(masks)} masks ({states}), sha256 {summary["parts"][part]["sha256"]}')
        shares = ', '.join(f'{name} {100 * count / max(1, pixels.sum()):.2f}%' for name, count in named.items())
        print(textwrap.indent(textwrap.fill(shares, 116), '    '))
    path = out / f'{recipe.rpartition("-")[0]}.json'
    before = json.loads(path.read_text()) if path.is_file() else summary
    for part, values in summary['parts'].items():
        old = before['parts'].get(part, values)['sha256']
        if old != values['sha256']:
            print(f'warning: {part} had the digest {old} in {path} before', file=sys.stderr)
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(summary, indent=1) + '\n')
    print(f'summary: {path}')
    return summary
