"""Images without masks, and their union with a labeled set."""
import bisect
import logging
import os
import os.path as osp
from typing import Iterator, List, Sequence, Union

import mmengine
import mmengine.fileio as fileio
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import ConcatDataset
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS

IMG_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class UnlabeledDataset(BaseSegDataset):
    """Images only. Masks are never opened, even where they exist.

    The images are either all files below ``data_prefix['img_path']`` whose name ends in ``img_suffix`` (folders
    searched at every depth, hidden files left out, sorted by path) or the lines of ``ann_file``.

    Args:
        ann_file (str): List of images relative to ``img_path``, one per line. A line without an image suffix is
            completed by ``img_suffix``. Empty for the whole folder.
        img_suffix (str or Sequence[str]): Endings of an image file, in any case. To complete lines of a list it must
            be one string. Defaults to the common image formats.
        exclude (str or Sequence[str]): List file(s) of images to leave out, such as the labeled and the validation
            images. A line is a path relative to ``img_path`` or a bare name, which matches in every folder; suffixes
            do not matter. Relative to ``data_root``.
        data_prefix (dict): ``img_path`` is the folder; ``seg_map_path`` is accepted and dropped.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: If the folder or a list file does not exist.
        ValueError: If no image is left, a line cannot be completed, or the pipeline loads annotations.
    """

    #: Whether the pipeline may load annotations.
    reads_masks = False

    def __init__(self,
                 ann_file: str = '',
                 img_suffix: Union[str, Sequence[str]] = IMG_SUFFIXES,
                 exclude: Union[str, Sequence[str]] = (),
                 data_prefix: dict = dict(img_path=''),  # noqa: B006
                 **kwargs) -> None:
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        own = (img_suffix, ) if isinstance(img_suffix, str) else img_suffix
        self._suffixes = tuple(s.lower() for s in own)
        # Longest first: 'b_leftImg8bit.png' loses all of '_leftImg8bit.png', not just '.png'.
        self._known_suffixes = tuple(sorted(set(self._suffixes + IMG_SUFFIXES), key=len, reverse=True))
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix if isinstance(img_suffix, str) else tuple(img_suffix),
            data_prefix=dict(img_path=data_prefix.get('img_path', '')),
            **kwargs)
        if not self.reads_masks and any(isinstance(t, LoadAnnotations) for t in self.pipeline.transforms):
            raise ValueError('UnlabeledDataset reads no masks: remove LoadAnnotations from its pipeline')

    def load_data_list(self) -> List[dict]:
        """Lists the images.

        Returns:
            list[dict]: ``img_path`` and the empty ``seg_fields`` that mmseg's transforms read.
        """
        folder = self.data_prefix['img_path']
        source = f'list {self.ann_file}' if self.ann_file else f'folder {folder or "(empty path)"}'
        names = list(self._read_list(self.ann_file) if self.ann_file else self._scan(folder))
        excluded = {self._key(name) for path in self.exclude for name in self._lines(self._under_root(path))}
        kept = names
        if excluded:
            keys = ((name, self._key(name)) for name in names)
            kept = [n for n, key in keys if key not in excluded and osp.basename(key) not in excluded]
            print_log(f'unlabeled {source}: {len(names) - len(kept)} of {len(names)} images left out, '
                      f'{len(excluded)} names in exclude', logger='current',
                      level=logging.INFO if len(kept) < len(names) else logging.WARNING)
        if not kept:
            raise ValueError(f'no unlabeled image in {source}: {len(names)} found with img_suffix {self.img_suffix}, '
                             f'{len(names) - len(kept)} of them left out by exclude {self.exclude}')
        return [dict(img_path=osp.join(folder, name), seg_fields=[]) for name in kept]

    def _under_root(self, path: str) -> str:
        return osp.join(self.data_root, path) if self.data_root else path

    def _key(self, name: str) -> str:
        """A name without its image suffix, '/' between folders."""
        lower = name.lower()
        length = next((len(s) for s in self._known_suffixes if lower.endswith(s)), 0)
        return osp.normpath(name[:len(name) - length]).replace(os.sep, '/')

    def _lines(self, path: str) -> List[str]:
        if not fileio.exists(path, backend_args=self.backend_args):
            raise FileNotFoundError(f'list of images not found: {path}')
        lines = (line.strip() for line in mmengine.list_from_file(path, backend_args=self.backend_args))
        return [line for line in lines if line]

    def _read_list(self, path: str) -> Iterator[str]:
        for line in self._lines(path):
            if line.lower().endswith(self._known_suffixes):
                yield line
            elif isinstance(self.img_suffix, str):
                yield line + self.img_suffix
            else:
                raise ValueError(f"{path}: '{line}' has no image suffix; set img_suffix to one string, e.g. '.jpg'")

    def _scan(self, folder: str) -> List[str]:
        if not osp.isdir(folder):
            raise FileNotFoundError(f'folder of unlabeled images not found: {folder or "(empty path)"}')
        names = []
        for here, folders, files in os.walk(folder, followlinks=True):
            folders[:] = [f for f in folders if not f.startswith('.')]
            prefix = osp.relpath(here, folder)
            found = [f for f in files if f.lower().endswith(self._suffixes) and not f.startswith('.')]
            names += found if prefix == '.' else [osp.join(prefix, f) for f in found]
        return sorted(names)


@DATASETS.register_module()
class SemiDataset(ConcatDataset):
    """``[labeled, unlabeled]`` under the meta information of the labeled set.

    A ConcatDataset demands equal classes, palette and label maps of its parts; unlabeled images have none of these.
    Also, whatever fails while a sample is made, the error names its files.

    Args:
        labeled (dict or BaseSegDataset): Images with masks.
        unlabeled (dict or BaseSegDataset): Images without, e.g. :class:`UnlabeledDataset`.
        lazy_init (bool): Whether to read the lists later. Defaults to False.

    Raises:
        ValueError: If a set is empty, or a sample cannot be decoded.
    """

    def __init__(self, labeled, unlabeled, lazy_init: bool = False) -> None:
        sources = [self._build('labeled', labeled), self._build('unlabeled', unlabeled)]
        super().__init__(sources, lazy_init=lazy_init, ignore_keys=sorted({k for d in sources for k in d.metainfo}))

    def __getitem__(self, idx: int) -> dict:
        """The sample ``idx``, labeled ones first."""
        try:
            return super().__getitem__(idx)
        except Exception as error:
            source = bisect.bisect_right(self.cumulative_sizes, idx)
            info = self.datasets[source].get_data_info(idx - self.cumulative_sizes[source - 1] if source else idx)
            paths = [info[key] for key in ('img_path', 'seg_map_path') if key in info]
            if any(path in str(error) for path in paths):
                raise
            # A decoder that meets an empty or broken file says so, but not which.
            files = ' and '.join(paths)
            raise ValueError(f'cannot make a sample of {files}: {type(error).__name__}: {error}') from error

    @staticmethod
    def _build(name: str, source) -> BaseSegDataset:
        if not isinstance(source, dict):
            return source
        try:
            return DATASETS.build(source)
        except ValueError as error:
            # An empty stock dataset fails in numpy.concatenate, which names nothing.
            where = {k: source[k] for k in ('data_root', 'ann_file', 'data_prefix') if k in source}
            raise ValueError(f'the {name} set cannot be built or is empty, {where}: {error}') from error
