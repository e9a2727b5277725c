"""Looks at one image and its mask, in a worker process.

The files are decoded twice: by PIL, which tells a truncated file (older OpenCV fills the rest with gray and says
nothing), and by the loading transforms of the config's own pipeline, which tell what training would see.
"""
import os
import signal
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from PIL import Image

from dataset_check.common import UserError, one_line, shown
from dataset_check.sources import Source
from mmseg_semi.datasets.mask_hint import cut_values

CHUNK = 16
ORIENTATION = 0x0112  # the EXIF tag
WIDE_MODES = ('I', 'I;16', 'I;16B', 'I;16L', 'F')

_sources: List[Source] = []
_stopped = False


@dataclass
class Record:
    """What was found in one image and its mask.

    Attributes:
        index (int): Place in the source.
        image, mask (str): Paths as the data set names them; ``mask`` is None where none is read.
        real (str): The image's path without links.
        num_bytes (int): Length of the image file; -1 if it is missing.
        shape (tuple[int, int]): Height and width as loaded.
        channels (int): Bands as loaded.
        kind (str): Format and mode of the image file, e.g. 'JPEG RGB'.
        mask_format (str): Format of the mask file.
        labels (tuple): ``(label, pixels)`` of the mask as the pipeline reads it.
        problems (list): ``(code, details)``; codes are those of :mod:`dataset_check.findings`.
    """
    index: int
    image: str
    mask: Optional[str]
    real: str
    num_bytes: int = -1
    shape: Optional[Tuple[int, int]] = None
    channels: Optional[int] = None
    kind: str = ''
    mask_format: str = ''
    labels: Tuple[Tuple[int, int], ...] = ()
    problems: List[Tuple[str, str]] = field(default_factory=list)


def make_pool(sources: Sequence[Source], workers: int) -> ProcessPoolExecutor:
    """Worker processes that know the sources. Under fork they share the lists; elsewhere each gets a copy once."""
    context = get_context('fork' if 'fork' in get_all_start_methods() else None)
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(list(sources), ))


def _start(sources: List[Source]) -> None:
    global _sources
    _sources = sources
    signal.signal(signal.SIGINT, _stop)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write about broken files to it, without their names
    cv2.setNumThreads(0)
    torch.set_num_threads(1)  # as in a worker of a data loader: threads do not survive a fork


def _stop(*_) -> None:
    """On Ctrl-C a worker leaves the rest of its images; the parent, who got the signal too, does all else."""
    global _stopped
    _stopped = True


def source_of(number: int) -> Source:
    """A source, in a worker."""
    return _sources[number]


def spread(pool: ProcessPoolExecutor, function: Callable, tasks: Iterable, window: int = 64) -> Iterator[Any]:
    """Results of ``function(task)`` as they come; at most ``window`` tasks are on their way.

    Raises:
        UserError: If a worker was killed.
    """
    tasks = iter(tasks)
    waiting = {pool.submit(function, task) for task in islice(tasks, window)}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(function, task) for task in islice(tasks, len(done))}
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError('a worker process was killed, perhaps for lack of memory; try fewer with --workers') from error
    finally:
        for future in waiting:
            future.cancel()


def chunks(sources: Sequence[Source]) -> Iterator[Tuple[int, Sequence[int]]]:
    """Tasks of :func:`scan`: number of the source, some places in it."""
    for number, source in enumerate(sources):
        for first in range(0, len(source), CHUNK):
            yield number, source.places[first:first + CHUNK]


def scan(task: Tuple[int, Sequence[int]]) -> Tuple[int, List[Record]]:
    """Looks at some images of one source."""
    number, places = task
    return number, [look(source_of(number), place) for place in places if not _stopped]


def rehearse(task: Tuple[int, int]) -> Tuple[int, int, Optional[str]]:
    """Makes one sample by the whole pipeline, as training would; returns the task and the error, if any."""
    number, place = task
    dataset = source_of(number).dataset
    sample = dataset.get_data_info(place)
    for transform in dataset.pipeline.transforms:
        try:
            sample = transform(sample)
        except Exception as error:  # any transform, also the user's own
            return number, place, f'{type(transform).__name__}: {one_line(error)}'
        if sample is None:  # training draws another one
            break
    return number, place, None


def look(source: Source, index: int) -> Record:
    """Looks at one image and, unless the source is unlabeled, its mask."""
    info = source.dataset.get_data_info(index)
    mask = info.get('seg_map_path') if source.mask_loaders else None
    record = Record(index, info['img_path'], mask, os.path.realpath(info['img_path']))
    header = _open(record, record.image, 'image', source.stock)
    if header is not None:
        record.num_bytes = os.path.getsize(record.image)
        _load_image(source, record, info, header)
    if source.role == 'unlabeled':
        return record
    if mask is None:
        record.problems.append(('no_mask', 'the data set names no mask' if source.mask_loaders else
                                'the pipeline has no LoadAnnotations'))
        return record
    header = _open(record, mask, 'mask')
    if header is not None:
        _load_mask(source, record, info, header)
    return record


def _open(record: Record, path: str, what: str, by_pil: bool = True) -> Optional[dict]:
    """Reads a file to its end; its header as PIL sees it, empty if PIL does not know the format, None if broken."""
    if not os.path.isfile(path):
        record.problems.append((f'missing_{what}', shown(path)))
        return None
    if os.path.getsize(path) == 0:
        record.problems.append((f'broken_{what}', f'{shown(path)}: 0 bytes'))
        return None
    if not by_pil:
        return {}
    try:
        picture = Image.open(path)
    except Exception:  # PIL raises many kinds
        return {}  # not a picture, or one for other readers: the pipeline's loader will tell
    try:
        with picture:
            wide = picture.mode in WIDE_MODES or _wide_bands(picture)  # before getexif, which may load the picture
            header = dict(format=picture.format, mode=picture.mode, wide=wide,
                          orientation=picture.getexif().get(ORIENTATION, 1))
            if what == 'image':
                picture.draft(None, (64, 64))  # a JPEG is read to its end, but not transformed at full size
            picture.load()
            return header
    except Exception as error:
        record.problems.append((f'broken_{what}', f'{shown(path)}: {one_line(error)}'))
        return None


def _wide_bands(picture: Image.Image) -> bool:
    """Whether a file that is not loaded yet has bands of 16 bits: Pillow cuts those of colors and calls them RGB."""
    args = picture.tile[0][3] if picture.tile else ''
    return ';16' in str(args[0] if isinstance(args, tuple) and args else args)


def _load_image(source: Source, record: Record, info: dict, header: dict) -> None:
    """Loads the image as the pipeline does."""
    try:
        for loader in source.image_loaders:
            info = loader(info) or info
        image = info['img']
    except Exception as error:
        record.problems.append(('broken_image', f'{shown(record.image)}: {one_line(error)}'))
        return
    record.shape, record.channels = image.shape[:2], 1 if image.ndim == 2 else image.shape[2]
    suffix = os.path.splitext(record.image)[1].lstrip('.').upper()
    record.kind = f'{header["format"]} {header["mode"]}' if header else suffix
    expected = source.model.channels
    if expected is not None and record.channels != expected:
        record.problems.append(('channels', f'{shown(record.image)}: {record.channels}, the model expects {expected}'))
    if not source.stock:
        return  # other loaders have rules of their own
    mode = header.get('mode', '')
    if header.get('wide') and record.channels == 3:
        record.problems.append(('wide_image', f'{shown(record.image)}: mode {mode}'))
    if mode in ('RGBA', 'LA', 'PA') and record.channels == 3:
        record.problems.append(('alpha', f'{shown(record.image)}: mode {mode}'))
    if header.get('orientation', 1) != 1 and source.role != 'unlabeled':
        record.problems.append(('exif', f'{shown(record.image)}: orientation {header["orientation"]}'))


def _load_mask(source: Source, record: Record, info: dict, header: dict) -> None:
    """Loads the mask as the pipeline does, with ``reduce_zero_label`` and ``label_map``, and counts its labels."""
    path = shown(record.mask)
    record.mask_format = header.get('format', '')
    mode = header.get('mode')
    if mode in ('RGB', 'RGBA', 'LA', 'PA', 'CMYK', 'YCbCr'):
        record.problems.append(('color_mask', f'{path}: mode {mode}'))
        return
    cut = cut_values(record.mask)
    if cut:
        record.problems.append(('wide_mask', f'{path} {cut}'))
        return
    try:
        info = dict(info, seg_fields=[])
        for loader in source.mask_loaders:
            info = loader(info) or info
        mask = info['gt_seg_map']
    except Exception as error:
        record.problems.append(('broken_mask', f'{path}: {one_line(error)}'))
        return
    if mask.ndim != 2:
        record.problems.append(('color_mask', f'{path}: {mask.shape} values'))
        return
    counts = np.bincount(mask.ravel().astype(np.uint8), minlength=256)
    record.labels = tuple((int(label), int(counts[label])) for label in np.flatnonzero(counts))
    limit, ignore = len(source.classes), source.model.ignore_index
    wrong = [label for label, _ in record.labels if label >= limit and label != ignore]
    if wrong and limit:
        record.problems.append(('wrong_labels', f'{path}: {_short(wrong)}'))
    if all(label == ignore for label, _ in record.labels):
        record.problems.append(('empty_mask', path))
    if record.shape is not None and mask.shape != record.shape:
        turned = ('exif', ) in [problem[:1] for problem in record.problems] and mask.shape == record.shape[::-1]
        record.problems.append(('exif_size' if turned else 'size_mismatch',
                                f'{shown(record.image)} is {_size(record.shape)}, {path} is {_size(mask.shape)}'))


def _short(numbers: Sequence[int]) -> str:
    return ', '.join(map(str, numbers[:8])) + (f', ... ({len(numbers)} values)' if len(numbers) > 8 else '')


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]}'
