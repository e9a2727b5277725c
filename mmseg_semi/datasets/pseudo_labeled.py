"""Images with masks that a model made."""
import hashlib
import json
import logging
import os.path as osp
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image, UnidentifiedImageError

from mmseg_semi.datasets.transforms import CheckSegMap
from mmseg_semi.datasets.unlabeled import UnlabeledDataset
from mmseg_semi.registry import DATASETS

IGNORE = 255
MAX_BAD = 0.01
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF: photographs that loaders turn by 90 degrees


def read_mask(path: str) -> np.ndarray:
    """The class indices of a pseudo-label, [H, W] uint8.

    Raises:
        ValueError: If the file cannot be read, or holds no indices (mode P or L).
    """
    try:
        with Image.open(path) as picture:
            mode, mask = picture.mode, np.array(picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'cannot read pseudo-label {path}: {type(error).__name__}: {error}') from error
    if mode not in ('P', 'L'):
        raise ValueError(f'pseudo-label {path} is a PNG of mode {mode}; expected class indices, mode P or L')
    return mask


def check_mask(path: str, size: Sequence[int], present: Sequence[int], image: str, image_size: Optional[tuple],
               num_classes: Optional[int]) -> None:
    """Compares a pseudo-label with its image.

    Args:
        path (str): File of the mask.
        size (Sequence[int]): Its (height, width).
        present (Sequence[int]): The labels in it.
        image (str): File of the image.
        image_size (tuple, optional): Its (height, width), None if it is not known.
        num_classes (int, optional): None if it is not known.

    Raises:
        ValueError: If the sizes differ, or a label is no class and not 255.
    """
    if image_size and tuple(size) != tuple(image_size):
        raise ValueError(f'pseudo-label {path} is {tuple(size)}, its image {image} is {tuple(image_size)} '
                         '(height, width)')
    wrong = [label for label in present if label != IGNORE and label >= (num_classes or IGNORE)]
    if wrong:
        raise ValueError(f'pseudo-label {path} holds labels {wrong[:5]}; expected 0..{num_classes - 1} or {IGNORE} '
                         '(ignore)')


@DATASETS.register_module()
class PseudoLabeledDataset(UnlabeledDataset):
    """The images of an :class:`UnlabeledDataset` with masks from ``PseudoLabelStage``.

    Every mask is checked once, when the dataset is built: a PNG of mode P or L, of the size of its image, with labels
    in 0..C-1 or 255. A mask that has the digest of its line in ``manifest.jsonl`` is as the stage wrote it and need not
    be decoded.

    Args:
        mask_dirs (str or Sequence[str]): Folders of masks. The first one that holds a mask of an image gives it, so a
            later labeling overlays an earlier one and nothing is overwritten.
        on_bad_mask (str): ``'error'``, or ``'skip'``: images without a good mask are left out and counted, unless they
            are more than 1 % of all.
        **kwargs: Of :class:`UnlabeledDataset`; the pipeline loads annotations, without ``reduce_zero_label``: masks
            hold the classes of the network. Their number is that of ``metainfo``, or of ``CheckSegMap`` in the
            pipeline.

    Raises:
        FileNotFoundError: If an image has no mask in any folder.
        ValueError: If a mask is bad, or too many are, or ``on_bad_mask`` is unknown.
    """

    reads_masks = True

    def __init__(self, mask_dirs: Union[str, Sequence[str]], on_bad_mask: str = 'error', **kwargs) -> None:
        if on_bad_mask not in ('error', 'skip'):
            raise ValueError(f"PseudoLabeledDataset.on_bad_mask must be 'error' or 'skip', found {on_bad_mask!r}")
        self.mask_dirs = [mask_dirs] if isinstance(mask_dirs, str) else list(mask_dirs)
        self.on_bad_mask = on_bad_mask
        super().__init__(**kwargs)
        for step in self.pipeline.transforms:
            if isinstance(step, LoadAnnotations):
                step.reduce_zero_label = False  # of the labeled images, whose pipeline this may be

    def load_data_list(self) -> List[dict]:
        """As :class:`UnlabeledDataset`, with ``seg_map_path`` and what ``LoadAnnotations`` reads."""
        infos, kept, bad = super().load_data_list(), [], []
        self._manifests = {folder: self._manifest(folder) for folder in self.mask_dirs}
        bar = ProgressBar(len(infos)) if get_rank() == 0 else None
        for info in infos:
            try:
                self._add_mask(info)
                kept.append(info)
            except (FileNotFoundError, ValueError) as error:
                if self.on_bad_mask == 'error':
                    raise
                bad.append(str(error))
            if bar:
                bar.update()
        if bar:
            bar.file.write('\n')
        del self._manifests
        if len(bad) > MAX_BAD * len(infos):
            raise ValueError(f'{len(bad)} of {len(infos)} pseudo-labels are bad, more than {MAX_BAD:.0%}; label the '
                             f'images again. The first: {bad[0]}')
        if bad:
            print_log(f'{len(bad)} of {len(infos)} images are left out for their pseudo-labels. The first: {bad[0]}',
                      'current', level=logging.WARNING)
        return kept

    @staticmethod
    def _manifest(folder: str) -> Dict[str, dict]:
        """Records of ``PseudoLabelStage`` by file; none for masks of another origin."""
        path = Path(folder) / 'manifest.jsonl'
        return {record['file']: record for record in map(json.loads, path.read_text().splitlines())
                } if path.is_file() else {}

    @property
    def _num_classes(self) -> Optional[int]:
        checks = [t.num_classes for t in self.pipeline.transforms if isinstance(t, CheckSegMap)]
        return len(self.metainfo.get('classes') or ()) or (checks[0] if checks else None)

    def _add_mask(self, info: dict) -> None:
        """Finds and checks the mask of an image."""
        image = info['img_path']
        file = osp.splitext(osp.relpath(image, self.data_prefix['img_path'] or '.'))[0].replace('\\', '/') + '.png'
        paths = {folder: osp.join(folder, file) for folder in self.mask_dirs}
        folder = next((folder for folder in self.mask_dirs if osp.isfile(paths[folder])), None)
        if folder is None:
            raise FileNotFoundError(f'no pseudo-label of {image}: looked for {", ".join(paths.values())}')
        path = paths[folder]
        size, present = self._describe(path, self._manifests[folder].get(file))
        check_mask(path, size, present, image, self._image_size(image), self._num_classes)
        info.update(seg_map_path=path, label_map=None, reduce_zero_label=False)

    @staticmethod
    def _image_size(path: str) -> Optional[tuple]:
        """(Height, width) of an image, None if Pillow does not know its format: ``CheckSegMap`` looks again then."""
        try:
            with Image.open(path) as picture:
                return picture.size if picture.getexif().get(ORIENTATION) in SIDEWAYS else picture.size[::-1]
        except UnidentifiedImageError:
            return None

    @staticmethod
    def _describe(path: str, record: Optional[dict]) -> tuple:
        """Size (height, width) of a mask and the labels in it."""
        if record and hashlib.sha256(Path(path).read_bytes()).hexdigest() == record['sha256']:
            return record['size'], np.flatnonzero(record['histogram']).tolist()
        mask = read_mask(path)
        return mask.shape, np.unique(mask).tolist()
