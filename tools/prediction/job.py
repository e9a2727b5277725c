"""Predicts all sources: batches, progress, what is done already, what fails."""
import sys
from collections import Counter, defaultdict
from pathlib import Path
from textwrap import shorten
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.utils import ProgressBar

from .inputs import Source, Unreadable
from .network import Picture, Prediction, Predictor
from .outputs import Output
from .video import count_frames, frames, paint_video

FRAMES = '[0-9]*.png'  # the masks of a video; not the half files that a killed process leaves, which begin with a dot


class Waiting(NamedTuple):
    """A picture that waits for its batch: its file, names, stamp and whether it gets an overlay (no frame does)."""
    path: Path
    name: str
    key: str
    stamp: str
    picture: Picture
    overlay: bool


class Job:
    """One call of the tool.

    Args:
        predictor (Predictor): The network.
        output (Output): Where results go.
        batch_size (int): Pictures of one size that pass the network together.
        overwrite (bool): Whether results that are there are made again.

    Attributes:
        failures (dict[str, str]): Path and reason of each file that cannot be predicted.
    """

    def __init__(self, predictor: Predictor, output: Output, batch_size: int, overwrite: bool = False) -> None:
        self.predictor, self.output, self.batch_size, self.overwrite = predictor, output, batch_size, overwrite
        self.areas: Dict[str, np.ndarray] = {}
        self.failures: Dict[str, str] = {}
        self.counts: Counter = Counter()
        self._waiting: Dict[tuple, List[Waiting]] = defaultdict(list)
        self._bar: Optional[ProgressBar] = None

    def protect(self, sources: Sequence[Source]) -> None:
        """Makes sure that nothing but results of these sources will be overwritten.

        Raises:
            ValueError: If a mask lies where one of theirs belongs.
        """
        for source in sources:
            for key in self._frame_keys(source) if source.is_video else [source.key]:
                self.output.refuse_foreign(key, source.path)

    def run(self, sources: Sequence[Source]) -> None:
        """Predicts what is not there yet and writes the table of areas."""
        self._bar = ProgressBar(sum(count_frames(s.path) or 1 if s.is_video else 1 for s in sources))
        for source in sources:
            try:
                if not self._done(source):
                    (self._video if source.is_video else self._image)(source)
            except (Unreadable, FileNotFoundError) as error:
                self.failures[str(source.path)] = str(error)
                self._bar.update()
        self._flush()
        print()
        # In the order of the sources, whatever the batches were; a video's frames in theirs.
        order = {source.name: i for i, source in enumerate(sources)}
        ranked = sorted(self.areas, key=lambda name: (order.get(name, order.get(name.rpartition('/')[0], 0)), name))
        self.output.write_areas({name: self.areas[name] for name in ranked})

    def _done(self, source: Source) -> bool:
        """Whether nothing is left to do; then its areas are read from the masks."""
        if self.overwrite:
            return False
        out, stamp = self.output, self.output.stamp(source.path)
        if not source.is_video:
            if not (out.has(source.key, stamp, source.path) and (out.overlays / f'{source.key}.jpg').is_file()):
                return False
            self._known(source.name, source.key)
            return True
        keys = self._frame_keys(source)
        if not (keys and self._overlay_video(source).is_file()
                and all(out.has(key, stamp, source.path) for key in keys)):
            return False
        for key in keys:
            self._known(f'{source.name}/{key.rpartition("/")[2]}', key)
        return True

    def _frame_keys(self, source: Source) -> List[str]:
        """Of the masks of a video that are there."""
        return sorted(f'{source.key}/{path.stem}' for path in (self.output.masks / source.key).glob(FRAMES))

    def _known(self, name: str, key: str) -> None:
        self.areas[name] = self.output.count(self.output.read_mask(key))
        self.counts['kept'] += 1
        self._bar.update()

    def _image(self, source: Source) -> None:
        stamp, picture = self.output.stamp(source.path), self.predictor.read(source.path)
        self._add(Waiting(source.path, source.name, source.key, stamp, picture, overlay=True))

    def _video(self, source: Source) -> None:
        """First all masks, then the overlay video, whose presence thus says that all masks are there."""
        stamp, overlay, last = self.output.stamp(source.path), self._overlay_video(source), 0
        overlay.unlink(missing_ok=True)
        for last, frame in frames(source.path):
            name, key = f'{source.name}/{last:06d}', f'{source.key}/{last:06d}'
            if not self.overwrite and self.output.has(key, stamp, source.path):
                self._known(name, key)
                continue
            self._add(Waiting(source.path, name, key, stamp, self.predictor.read(frame), overlay=False))
            if str(source.path) in self.failures:  # the frames are alike, and without one there is no overlay
                return
        self._flush()
        if str(source.path) in self.failures:
            return
        for folder in (self.output.masks, self.output.confidence):  # of a longer video of this name
            for path in (folder / source.key).glob(FRAMES):
                if int(path.stem) > last:
                    path.unlink()

        def paint(number: int, frame: np.ndarray) -> np.ndarray:
            return self.output.paint(frame, self.output.read_mask(f'{source.key}/{number:06d}'))

        paint_video(source.path, overlay, paint)

    def _overlay_video(self, source: Source) -> Path:
        # Behind any name, also that of an .mp4: else clip.avi and clip.avi.mp4 would share one.
        return self.output.overlays / f'{source.key}.mp4'

    def _add(self, item: Waiting) -> None:
        """Keeps a picture until its batch is full; few sizes wait at a time, so memory stays bounded."""
        batch = self._waiting[tuple(item.picture.inputs.shape)]
        batch.append(item)
        if len(batch) >= self.batch_size:
            self._predict(batch)
        elif sum(map(len, self._waiting.values())) >= 4 * self.batch_size:
            self._flush()

    def _flush(self) -> None:
        for batch in list(self._waiting.values()):
            if batch:
                self._predict(batch)

    def _predict(self, batch: List[Waiting]) -> None:
        items = list(batch)
        batch.clear()  # first, so that nothing is tried again on the way out
        for item, result in self._results(items):
            image = item.picture.image if item.overlay else None
            self.output.save(item.key, item.stamp, item.path, result.mask, result.confidence, image)
            self.areas[item.name] = self.output.count(result.mask)
            self.counts['made'] += 1
            self._bar.update()

    def _results(self, items: List[Waiting]) -> Iterator[Tuple[Waiting, Prediction]]:
        """What the network says; if it fails on several, each is tried alone, so that only the culprit fails."""
        try:
            results = self.predictor.predict([item.picture for item in items])
        except Exception as error:  # a network raises whatever its parts do
            reason = f'the network fails: {type(error).__name__}: {error}'
            if isinstance(error, torch.cuda.OutOfMemoryError):
                reason = self._too_large(len(items))
        else:
            yield from zip(items, results, strict=True)
            return
        # Behind the handler, whose exception holds what the network had on the GPU.
        if len(items) > 1:
            for item in items:
                yield from self._results([item])
        else:
            self._refused(items[0], reason)

    def _too_large(self, count: int) -> str:
        """The GPU cannot hold so many pictures of one size at a time: fewer from now on."""
        if 1 < count <= self.batch_size:
            self.batch_size = count // 2
            print(f'\nthe GPU memory is too small for {count} pictures at a time; on with {self.batch_size}',
                  file=sys.stderr, flush=True)
        return ('the GPU memory is too small for it; give --device cpu, or predict by windows: --cfg-options '
                'model.test_cfg.mode=slide model.test_cfg.crop_size=512,512 model.test_cfg.stride=341,341')

    def _refused(self, item: Waiting, reason: str) -> None:
        reason = shorten(reason, 300)
        if not item.overlay:
            reason = f'frame {int(item.key.rpartition("/")[2])}: {reason}'
        if not self.counts['refused']:
            # At once: with a wrong config all will fail, and nobody should wait for the end to learn it.
            print(f'\nerror: {item.path}: {reason}; the others go on', file=sys.stderr, flush=True)
        self.counts['refused'] += 1
        self.failures.setdefault(str(item.path), reason)
        self._bar.update()
