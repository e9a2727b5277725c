"""What is written: masks, overlays, confidence maps, the table of areas. A file appears only when it is whole."""
import csv
import json
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from mmseg_semi.files import whole

FOLDERS = ('masks', 'overlays', 'confidence')
STAMP = 'mmseg_semi'  # name of the text in a PNG that says what it was made from
SOURCE = 'source'  # and of the one that says from which file, as JSON since names may hold anything


class Output:
    """The result folder.

    Args:
        folder (Path): Holds ``masks``, ``overlays``, ``confidence`` and ``areas.csv``.
        classes (Sequence[str]): Names.
        palette (Sequence[tuple]): RGB of each class.
        fingerprint (str): Of what the masks are made with.
        opacity (float): Of the classes' colors in overlays, 0 to 1.
        confidence (bool): Whether confidence maps are written.
    """

    def __init__(self, folder: Path, classes: Sequence[str], palette: Sequence[Tuple[int, int, int]],
                 fingerprint: str, opacity: float = 0.5, confidence: bool = False) -> None:
        self.masks, self.overlays, self.confidence = (folder / name for name in FOLDERS)
        self.areas = folder / 'areas.csv'
        self.classes, self.opacity, self.with_confidence = classes, opacity, confidence
        self.fingerprint = f'{fingerprint} opacity={opacity:g}'
        self._palette = [channel for color in palette for channel in color]
        self._bgr = np.array(palette, np.uint8)[:, ::-1]

    def stamp(self, source: Path) -> str:
        """What a mask of this file says about its origin: settings, size and time of change of the file."""
        about = source.stat()
        return f'{self.fingerprint} bytes={about.st_size} changed={about.st_mtime_ns}'

    def has(self, key: str, stamp: str, source: Path) -> bool:
        """Whether all pictures of an image, or the mask and confidence map of a frame, are there and up to date.

        The mask is written last, so it vouches for the overlay.
        """
        wanted = {STAMP: stamp, SOURCE: json.dumps(str(source))}
        folders = (self.masks, self.confidence) if self.with_confidence else (self.masks, )
        return all(_texts(folder / f'{key}.png') == wanted for folder in folders)

    def refuse_foreign(self, key: str, source: Path) -> None:
        """Protects what this file must not overwrite: masks that somebody drew, results of another image.

        Raises:
            ValueError: If there is such a mask.
        """
        path = self.masks / f'{key}.png'
        texts = _texts(path)
        if texts is None:
            return
        if STAMP not in texts:
            raise ValueError(f'{path} was not written by this tool and would be overwritten; give another --out')
        other = json.loads(texts.get(SOURCE, json.dumps(str(source))))
        if other != str(source) and Path(other).exists():
            raise ValueError(f'{path} is the result of {other} and would be overwritten by that of {source}; give '
                             'another --out, or both in one call')

    def save(self, key: str, stamp: str, source: Path, mask: np.ndarray, confidence: np.ndarray,
             image: Optional[np.ndarray] = None) -> None:
        """Writes the pictures of an image; without ``image`` (BGR, a frame of a video) no overlay."""
        if image is not None:
            with whole(self.overlays / f'{key}.jpg') as part:
                # Not cv2.imwrite: it reports a full disk by a return value and cannot write beyond ASCII everywhere.
                Image.fromarray(self.paint(image, mask)[..., ::-1]).save(part, quality=95)
        texts = PngImagePlugin.PngInfo()
        texts.add_text(STAMP, stamp)
        texts.add_text(SOURCE, json.dumps(str(source)))
        if self.with_confidence:
            with whole(self.confidence / f'{key}.png') as part:
                Image.fromarray(confidence).save(part, pnginfo=texts)
        picture = Image.fromarray(mask)
        picture.putpalette(self._palette)
        with whole(self.masks / f'{key}.png') as part:
            picture.save(part, pnginfo=texts)

    def read_mask(self, key: str) -> np.ndarray:
        """The class indices [H, W] uint8 of a mask that was written before."""
        with Image.open(self.masks / f'{key}.png') as mask:
            return np.array(mask)

    def paint(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The image [H, W, 3] BGR uint8 under the classes' colors."""
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return cv2.addWeighted(image, 1 - self.opacity, self._bgr[mask], self.opacity, 0)

    def count(self, mask: np.ndarray) -> np.ndarray:
        """Pixels of each class, [C]."""
        return np.bincount(mask.ravel(), minlength=len(self.classes))

    def write_areas(self, areas: Dict[str, np.ndarray]) -> None:
        """Writes ``areas.csv``: for each image and class the number of pixels and their share of the image."""
        with whole(self.areas) as part, open(
                part, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
            table = csv.writer(file)
            table.writerow(('image', 'class', 'pixels', 'share'))
            for name, counts in areas.items():
                total = counts.sum()
                table.writerows((name, label, int(n), f'{n / total:.6f}')
                                for label, n in zip(self.classes, counts, strict=True))


def _texts(path: Path) -> Optional[Dict[str, str]]:
    """The texts of ours that a PNG holds; None if there is no such file, or none that can be read."""
    try:
        with Image.open(path) as picture:
            return {name: str(picture.info[name]) for name in (STAMP, SOURCE) if name in picture.info}
    except OSError:
        return None
