"""Images without masks, and their union with a labeled set."""
import logging
import os.path as osp
from typing import List, NamedTuple, Sequence, Union

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadAnnotations, Pad
from mmengine.dataset import ConcatDataset
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS

from .exclusion import ExcludeList, Exclusion, RealPaths
from .file_errors import naming_files
from .image_lists import (
    IMG_SUFFIXES,
    below,
    composed,
    drop_twins,
    files_beside,
    first,
    read_list,
    strip_suffix,
    walk,
)
from .mask_folders import stamped_folders
from .path_list import PathList


class Folder(NamedTuple):
    """A folder of the pool; its images are listed ``weight`` times."""
    path: str
    weight: int


@DATASETS.register_module()
class UnlabeledDataset(BaseSegDataset):
    """Images only. Masks are never opened, even where they exist.

    The images are all files below ``folders`` or ``data_prefix['img_path']`` whose name ends in ``img_suffix`` (folders
    searched at every depth, hidden files left out, links followed once, sorted by path), or the lines of ``ann_file``.
    Of files in one folder that differ in the suffix only, one is taken, a PNG last: it is the mask of the other.
    Folders that convert_masks.py read or wrote hold masks and are left out.

    A million paths need some 100 MB and are shared by all workers (:class:`PathList`, docs/benchmarks/scale.md).

    Args:
        ann_file (str): List of images relative to ``img_path``, one per line, with or without suffix; of a line
            ``image mask`` the image is taken. Every image must be there. Empty for the whole folder.
        img_suffix (str or Sequence[str]): Endings of an image file, in any case. Defaults to the common image formats.
        exclude (str or Sequence[str]): List file(s) of images to leave out, such as the labeled and the validation
            images. A line is a path relative to ``img_path`` (to its folder, if there are several) or a bare name,
            which matches in every folder; suffixes do not matter, and published lists may begin further up or down.
            Relative to ``data_root``.
        data_prefix (dict): ``img_path`` is the folder; ``seg_map_path`` is accepted and dropped.
        folders (Sequence[str or dict]): Folders instead, relative to ``data_root``. ``dict(path=..., weight=3)`` lists
            every image of a folder three times: it is drawn three times as often as one of a folder of weight
            1. Weights are whole numbers. ``data_prefix['img_path']`` becomes their common parent, to which the lines of
            an ``ann_file`` are relative then.
        exclude_sets (dict or Sequence[dict]): Configs of datasets whose images, and masks, are left out: labeled,
            validation, test. See :class:`Exclusion`.
        exclude_by (str): ``'path'`` or ``'content'``, which also finds copies of images of ``exclude_sets`` under other
            names. Defaults to 'path'.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`; ``serialize_data`` has no use here.

    Raises:
        FileNotFoundError: If a folder, a list file or a listed image does not exist.
        ValueError: If no image is left, a list of ``exclude`` names none of the folder's, the pipeline loads
            annotations, folders overlap, or an argument is out of range.
    """

    #: Whether the pipeline may load annotations. The records of such a class are dicts, to which it adds the masks.
    reads_masks = False

    def __init__(self,
                 ann_file: str = '',
                 img_suffix: Union[str, Sequence[str]] = IMG_SUFFIXES,
                 exclude: Union[str, Sequence[str]] = (),
                 data_prefix: dict = dict(img_path=''),  # noqa: B006
                 folders: Sequence[Union[str, dict]] = (),
                 exclude_sets: Union[dict, Sequence[dict]] = (),
                 exclude_by: str = 'path',
                 **kwargs) -> None:
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        self.exclude_sets = [exclude_sets] if isinstance(exclude_sets, dict) else list(exclude_sets)
        self.exclude_by = exclude_by
        own = (img_suffix, ) if isinstance(img_suffix, str) else img_suffix
        self._suffixes = tuple(s.lower() for s in own)
        # 'b_leftImg8bit.png' loses all of '_leftImg8bit.png', not just '.png'.
        self._known_suffixes = tuple({*self._suffixes, *IMG_SUFFIXES})
        prefix = data_prefix.get('img_path', '')
        self.folders: List[Folder] = []
        self.far_folders: List[str] = []  # absolute ones, whose common parent says where the data lie
        if folders:
            if prefix:
                raise ValueError(f'give either folders or data_prefix.img_path, got folders and {prefix!r}')
            self.folders = _read_folders(folders, kwargs.get('data_root') or '')
            prefix = osp.commonpath([folder.path for folder in self.folders])
            if len(self.folders) > 1 and osp.isabs(prefix):
                self.far_folders = [folder.path for folder in self.folders]
            if ann_file:  # names the images itself, as the lists of self-training do
                self.folders = []
        if not self.reads_masks:
            kwargs['serialize_data'] = False  # PathList is compact as it is
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix if isinstance(img_suffix, str) else tuple(img_suffix),
            data_prefix=dict(img_path=prefix),
            **kwargs)
        if not self.reads_masks and any(isinstance(t, LoadAnnotations) for t in self.pipeline.transforms):
            raise ValueError('UnlabeledDataset reads no masks: remove LoadAnnotations from its pipeline')
        if not self.reads_masks and any(isinstance(t, Pad) for t in self.pipeline.transforms):
            raise ValueError('UnlabeledDataset: what Pad adds would count as image and get pseudo-labels; remove it '
                             'from the pipeline and set model.data_preprocessor.size, whose padding is known')

    def load_data_list(self) -> Union[PathList, List[dict]]:
        """Lists the images.

        Returns:
            PathList or list[dict]: ``img_path`` and the empty ``seg_fields`` that mmseg's transforms read; dicts in
            classes with masks.
        """
        root = self.data_prefix['img_path']
        excluded = [ExcludeList(path, below(map(first, read_list(self._under_root(path), self.backend_args)), root))
                    for path in self.exclude]
        others = Exclusion(self.exclude_sets, self.exclude_by)
        names, order = [], []
        for path, weight in self.folders or [Folder('', 1)]:
            folder = self._under_root(path) if self.folders else root
            found = self._listed() if self.ann_file else drop_twins(
                walk(folder, self._suffixes), f'folder {folder or "(empty path)"}')
            inner = osp.relpath(folder, root or osp.curdir) if self.folders else osp.curdir
            kept = self._keep(found, folder, inner, excluded, others)
            order += [np.arange(len(names), len(names) + len(kept))] * weight
            names += kept if inner == osp.curdir else [osp.join(inner, name) for name in kept]
        for one in excluded if not self.ann_file else ():  # a list may leave them out itself
            one.check(f'of {root or "(empty path)"}', names)
        paths = PathList(root, names)
        paths = paths.take(np.concatenate(order)) if len(order) > 1 else paths
        return list(paths) if self.reads_masks else paths

    def _keep(self, names: List[str], folder: str, inner: str, excluded: Sequence[ExcludeList],
              others: Exclusion) -> List[str]:
        """The names below a folder, which is ``inner`` to the root, that neither lists nor sets exclude."""
        source = f'list {self.ann_file}' if self.ann_file else f'folder {folder or "(empty path)"}'
        kept = names
        if excluded:
            keys = [self._key(name) for name in names]
            out = set().union(*(one.find(keys, inner, self._key) for one in excluded))
            kept = [name for name, key in zip(names, keys, strict=True) if key not in out]
            print_log(f'unlabeled {source}: {len(names) - len(kept)} of {len(names)} images left out, '
                      f'{sum(len(one.names) for one in excluded)} names in exclude', logger='current',
                      level=logging.INFO if len(kept) < len(names) else logging.WARNING)
        stamped = () if self.ann_file else stamped_folders(kept, folder, others.mask_folders)
        if stamped:
            real, before = RealPaths(), len(kept)
            kept = [name for name in kept if not any(path.startswith(start) and path.lower().endswith(end)
                                                     for path in [real(osp.join(folder, name))]
                                                     for start, end in stamped)]
            print_log(f'unlabeled {source}: {before - len(kept)} of {before} files left out, they are masks that '
                      'convert_masks.py read or wrote', logger='current')
        if self.exclude_sets:
            foreign = others.keep([osp.join(folder, name) for name in kept])
            print_log(f'unlabeled {source}: {len(kept) - foreign.sum()} of {len(kept)} files left out, they belong to '
                      f'other sets (by {self.exclude_by})', logger='current')
            kept = [name for name, keep in zip(kept, foreign, strict=True) if keep]
        if not kept:
            raise ValueError(f'no unlabeled image in {source}: {len(names)} found with img_suffix {self.img_suffix}, '
                             f'{len(names) - len(kept)} of them left out by exclude {self.exclude} and '
                             f'{len(self.exclude_sets)} exclude_sets')
        return kept

    def _under_root(self, path: str) -> str:
        return osp.join(self.data_root, path) if self.data_root else path

    def _key(self, name: str) -> str:
        """A name without its image suffix, '/' between folders."""
        return strip_suffix(name, self._known_suffixes)

    def _listed(self) -> List[str]:
        """The files that the list names: by their stem, as make_partition.py writes them, or with their suffix."""
        folder = self.data_prefix['img_path']
        names = below(map(first, read_list(self.ann_file, self.backend_args)), folder)
        if not isinstance(fileio.get_file_backend(folder, backend_args=self.backend_args), fileio.LocalBackend):
            suffix = self.img_suffix if isinstance(self.img_suffix, str) else ''
            return [name if name.lower().endswith(self._known_suffixes) else name + suffix for name in names]
        found, wanted = files_beside(names, folder), set(map(composed, names))
        stems = {self._key(name): name for name in drop_twins(
            [n for n in found if n.lower().endswith(self._suffixes) and self._key(n) in wanted], f'folder {folder}')}
        there = set(found)
        # The stem first: 'a.tif' may be that of 'a.tif.jpg'.
        files = [stems.get(composed(name), name) for name in names]
        missing = [name for name, file in zip(names, files, strict=True)
                   if file not in there and not osp.isfile(osp.join(folder, file))]
        if missing:
            raise FileNotFoundError(f'{self.ann_file}: there is no image {", ".join(map(repr, missing[:3]))} '
                                    f'({len(missing)} of {len(names)} lines) below {folder} with img_suffix '
                                    f'{self.img_suffix}')
        return files


def _read_folders(folders: Sequence[Union[str, dict]], root: str) -> List[Folder]:
    """Checks ``folders``; paths relative to ``root`` unless one lies outside, then all are absolute."""
    if isinstance(folders, (str, dict)):
        raise TypeError(f'folders must be a list, such as [{folders!r}]')
    read = []
    for folder in folders:
        entry = dict(path=folder) if isinstance(folder, str) else dict(folder)
        path, weight = entry.pop('path', ''), entry.pop('weight', 1)
        if not path or entry:
            raise ValueError(f"a folder is a path or dict(path='...', weight=2), got {folder!r}")
        if type(weight) is not int or weight < 1:
            raise ValueError(f"the weight of folder '{path}' must be a whole number from 1 on, got {weight!r}; to "
                             'lower it, raise the weights of the other folders')
        read.append(Folder(osp.normpath(path), weight))
    if any(osp.isabs(folder.path) or folder.path.split(osp.sep)[0] == osp.pardir for folder in read):
        read = [Folder(osp.abspath(osp.join(root, folder.path)), folder.weight) for folder in read]
    real = [osp.join(osp.realpath(osp.join(root, folder.path)), '') for folder in read]
    for i, one in enumerate(real):
        inside = next((k for k, other in enumerate(real) if k != i and one.startswith(other)), None)
        if inside is not None:
            raise ValueError(f"folder '{read[i].path}' is (in) folder '{read[inside].path}': its images would be "
                             'listed twice; name one of them')
    return read


@DATASETS.register_module()
class SemiDataset(ConcatDataset):
    """``[labeled, unlabeled]`` under the meta information of the labeled set.

    A ConcatDataset demands equal classes, palette and label maps of its parts; unlabeled images have none of these.
    Also, whatever fails while a sample is made, the error names its files, and labels that are no class are refused.

    Args:
        labeled (dict or BaseSegDataset): Images with masks.
        unlabeled (dict or BaseSegDataset): Images without, e.g. :class:`UnlabeledDataset`.
        lazy_init (bool): Whether to read the lists later. Defaults to False.

    Raises:
        ValueError: If a set is empty, a sample cannot be decoded or holds a label that is no class.
    """

    def __init__(self, labeled, unlabeled, lazy_init: bool = False) -> None:
        sources = [self._build('labeled', labeled), self._build('unlabeled', unlabeled)]
        super().__init__(sources, lazy_init=lazy_init, ignore_keys=sorted({k for d in sources for k in d.metainfo}))

    def __getitem__(self, idx: int) -> dict:
        """The sample ``idx``, labeled ones first."""
        with naming_files(self, idx):
            sample = super().__getitem__(idx)
        if idx < self.cumulative_sizes[0]:
            self._check_label(sample, idx)
        return sample

    def _check_label(self, sample: dict, idx: int) -> None:
        """Refuses what would be an index error without a name, on a GPU an assertion of the device.

        :class:`CheckSegMap` finds it in the whole mask, and says which kind of mask it is; not every pipeline has it.
        """
        classes, samples = self.metainfo.get('classes'), sample.get('data_samples')
        if not classes or 'gt_sem_seg' not in (samples or ()):
            return
        label, ignored = samples.gt_sem_seg.data, getattr(self.datasets[0], 'ignore_index', 255)
        wrong = label[(label < 0) | ((label >= len(classes)) & (label != ignored))]
        if wrong.numel():
            path = self.get_data_info(idx).get('seg_map_path')
            raise ValueError(f'mask {path} holds labels {wrong.unique().tolist()}; '
                             f'expected 0..{len(classes) - 1} and {ignored}, which is ignored. Put '
                             f"dict(type='CheckSegMap', num_classes={len(classes)}) behind LoadAnnotations to hear "
                             'which kind of mask it is')

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
