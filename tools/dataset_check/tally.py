"""What the records of one source add up to."""
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

import numpy as np

from dataset_check.scan import Record
from dataset_check.sources import Source

EXAMPLES = 5  # kept of each problem
FLAT = ('PNG 1', 'PNG L', 'PNG P')  # what masks are


@dataclass
class Problem:
    """One kind of problem in one source: how many files, and the first of them with their places in the source."""
    count: int = 0
    examples: List[Tuple[str, int]] = field(default_factory=list)


@dataclass
class Folder:
    """The images of one folder: their names without suffix, whether all are PNGs of one channel, one place."""
    place: int
    stems: Set[str] = field(default_factory=set)
    flat: bool = True


@dataclass
class Tally:
    """Sums over the images of a source.

    Attributes:
        files (list): ``(place, image path, path without links, bytes)`` of every image.
        shapes, channels, kinds, mask_formats (Counter): Images per (height, width), bands, 'FORMAT MODE', mask format.
        pixels (ndarray): Pixels per label, int64 [256].
        images (ndarray): Images per label, int64 [256].
        masks (int): Masks that could be read.
        problems (dict): :class:`Problem` by code.
        folders (dict): :class:`Folder` by path.
        sound (int): First place without a problem, None if there is none.
    """
    source: Source
    files: List[Tuple[int, str, str, int]] = field(default_factory=list)
    shapes: Counter = field(default_factory=Counter)
    channels: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    mask_formats: Counter = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    masks: int = 0
    problems: Dict[str, Problem] = field(default_factory=dict)
    folders: Dict[str, Folder] = field(default_factory=dict)
    sound: Optional[int] = None

    def add(self, record: Record) -> None:
        """Counts one image."""
        self.files.append((record.index, record.image, record.real, record.num_bytes))
        path, name = os.path.split(record.image)
        folder = self.folders.setdefault(path, Folder(record.index))
        folder.stems.add(os.path.splitext(name)[0])
        folder.flat &= record.kind in FLAT
        if record.shape is not None:
            self.shapes[record.shape] += 1
            self.channels[record.channels] += 1
            self.kinds[record.kind] += 1
        if record.labels:
            self.masks += 1
            self.mask_formats[record.mask_format or 'unknown'] += 1
            labels, counts = zip(*record.labels, strict=True)
            self.pixels[list(labels)] += counts
            self.images[list(labels)] += 1
        for code, details in record.problems:
            self.add_problem(code, details, record.index)

    def close(self) -> None:
        """To be called after the last image. Puts everything into the order of the source: workers finish in any."""
        self.files.sort()
        bad = {place for problem in self.problems.values() for _, place in problem.examples}
        self.sound = next((place for place, *_ in self.files if place not in bad), None)
        for problem in self.problems.values():
            problem.examples = sorted(problem.examples, key=lambda example: example[1])[:EXAMPLES]

    def add_problem(self, code: str, details: str, place: int) -> None:
        """Notes a problem of the image at a place."""
        problem = self.problems.setdefault(code, Problem())
        problem.count += 1
        problem.examples.append((details, place))

    @property
    def broken(self) -> int:
        """Images and masks that are missing or cannot be read."""
        return sum(problem.count for code, problem in self.problems.items() if code.split('_')[0] in
                   ('missing', 'broken'))

    def share(self, label: int) -> float:
        """Share of the labeled pixels, in [0, 1]; ignored ones do not count."""
        total = self.pixels.sum() - self.pixels[self.source.model.ignore_index]
        return float(self.pixels[label] / total) if total else 0.0

    def summary(self) -> dict:
        """Plain numbers for the report."""
        sides = sorted(self.shapes, key=lambda shape: (shape[0] * shape[1], shape))
        names = self.source.classes
        return dict(
            name=self.source.name, role=self.source.role, images=len(self.files), masks=self.masks,
            broken=self.broken, smallest=list(sides[0]) if sides else None, largest=list(sides[-1]) if sides else None,
            sizes=len(sides), kinds=dict(self.kinds.most_common()), mask_formats=dict(self.mask_formats.most_common()),
            ignored_share=float(self.pixels[self.source.model.ignore_index] / max(self.pixels.sum(), 1)),
            classes=[dict(name=name, pixels=int(self.pixels[c]), share=self.share(c), images=int(self.images[c]))
                     for c, name in enumerate(names[:256])] if self.source.role != 'unlabeled' else [])
