"""Labeled images in folders, as users have them."""
import os.path as osp
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple, Union

from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS

from .file_errors import naming_files
from .image_lists import (
    IMG_SUFFIXES,
    MASK_SUFFIXES,
    below,
    composed,
    outside,
    read_list,
    split_pair,
    strip_suffix,
    walk,
)
from .mask_hint import Place, check_any_class, partner_hint

_SHOWN = 5


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Images and masks that belong together by folder and stem, whatever their suffixes.

    ``img_path/day/a.JPG`` has the mask ``seg_map_path/day/a.png``. Folders are searched at every depth; masks lie in
    a mirrored tree or beside their images, when both paths are the same.

    Args:
        ann_file (str): List of images to take, one per line: relative to ``img_path``, with or without suffix, or
            ``image mask`` pairs, the mask relative to ``seg_map_path``. Empty takes all, and then a mask without an
            image is an error, too.
        img_suffix (str or Sequence[str]): Endings of an image file, in any case. Defaults to the common image formats.
        seg_map_suffix (str or Sequence[str], optional): Endings of a mask, such as ``'_mask.png'``; what comes before
            is the stem. Defaults to lossless formats, beside images to ``'.png'``.
        data_prefix (dict): ``img_path`` and ``seg_map_path``.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: If a folder, the list or a listed image does not exist.
        ValueError: If there is no image, an image or a mask has no partner, two files share a stem, or no mask shows
            any class but the first, or with ``reduce_zero_label`` any at all; names the files.
    """

    def __init__(self,
                 ann_file: str = '',
                 img_suffix: Union[str, Sequence[str]] = IMG_SUFFIXES,
                 seg_map_suffix: Optional[Union[str, Sequence[str]]] = None,
                 data_prefix: dict = dict(img_path='', seg_map_path=''),  # noqa: B006
                 **kwargs) -> None:
        paths = [data_prefix.get(key) for key in ('img_path', 'seg_map_path')]
        if None in paths:
            raise ValueError(f'data_prefix must be dict(img_path=..., seg_map_path=...), got {dict(data_prefix)}; '
                             'images without masks belong into UnlabeledDataset')
        self._beside = osp.normpath(paths[0]) == osp.normpath(paths[1])
        if seg_map_suffix is None:
            seg_map_suffix = '.png' if self._beside else MASK_SUFFIXES
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix if isinstance(img_suffix, str) else tuple(img_suffix),
            seg_map_suffix=seg_map_suffix if isinstance(seg_map_suffix, str) else tuple(seg_map_suffix),
            data_prefix=dict(img_path=paths[0], seg_map_path=paths[1]),
            **kwargs)

    def __getitem__(self, idx: int) -> dict:
        """The sample ``idx``.

        Raises:
            ValueError: If it cannot be made; names the files.
        """
        with naming_files(self, idx):
            return super().__getitem__(idx)

    def load_data_list(self) -> List[dict]:
        """Lists the pairs, sorted by image or in the order of the list file.

        Returns:
            list[dict]: ``img_path``, ``seg_map_path`` and what ``LoadAnnotations`` reads.
        """
        folders = self.data_prefix['img_path'], self.data_prefix['seg_map_path']
        img_suffixes, mask_suffixes = (tuple(s.lower() for s in ((x, ) if isinstance(x, str) else x))
                                       for x in (self.img_suffix, self.seg_map_suffix))
        names = outside(walk(folders[0], img_suffixes), *folders)
        if self._beside:
            names = [name for name in names if not name.lower().endswith(mask_suffixes)]
        images = _by_stem(names, img_suffixes, f'images below {folders[0]}')
        names = outside(walk(folders[1], mask_suffixes), *folders[::-1])
        masks = _by_stem(names, mask_suffixes, f'masks below {folders[1]}')
        if not images:
            raise ValueError(f'no image below {folders[0]} with img_suffix {self.img_suffix}' +
                             (f' besides masks, seg_map_suffix {self.seg_map_suffix}' if self._beside else ''))
        pairs = list(self._listed(images, masks, img_suffixes, mask_suffixes)) if self.ann_file else self._all(
            images, masks, mask_suffixes)
        infos = [dict(img_path=osp.join(folders[0], image), seg_map_path=osp.join(folders[1], mask),
                      seg_map_folder=folders[1], label_map=self.label_map,
                      reduce_zero_label=self.reduce_zero_label, seg_fields=[])
                 for image, mask in pairs]
        if not infos:
            raise ValueError(f'{self.ann_file} lists no image')
        if self.label_map is None:
            suffix = self.seg_map_suffix if self._beside and isinstance(self.seg_map_suffix, str) else ''
            check_any_class([info['seg_map_path'] for info in infos], self.ignore_index, Place(folders[1], suffix),
                            self.reduce_zero_label)
        return infos

    def _all(self, images: Dict[str, str], masks: Dict[str, str],
             mask_suffixes: Sequence[str]) -> List[Tuple[str, str]]:
        alone = [images[stem] for stem in images if stem not in masks]
        unused = [masks[stem] for stem in masks if stem not in images]
        if alone or unused:
            parts = [f'{what} ({len(files)}): {_some(files)}'
                     for files, what in ((alone, 'images without mask'), (unused, 'masks without image')) if files]
            raise ValueError(f'{"; ".join(parts)}. Images are below {self.data_prefix["img_path"]}, masks below '
                             f'{self.data_prefix["seg_map_path"]} with seg_map_suffix {self.seg_map_suffix}; partners '
                             'need the same folder and stem. To use some of the images, list these in ann_file' +
                             self._hint({stem for stem in images if stem not in masks}, mask_suffixes))
        return [(image, masks[stem]) for stem, image in images.items()]

    def _listed(self, images: Dict[str, str], masks: Dict[str, str],
                img_suffixes: Sequence[str], mask_suffixes: Sequence[str]) -> Iterator[Tuple[str, str]]:
        files = set(masks.values())
        lines = read_list(self.ann_file, self.backend_args)
        pairs = [split_pair(line) for line in lines]
        names = below((name for name, _ in pairs), self.data_prefix['img_path'])
        named = below((mask or '' for _, mask in pairs), self.data_prefix['seg_map_path'])
        for line, name, mask in zip(lines, names, named, strict=True):
            stem = composed(name)
            # The stem itself first: '2007_1.5' ends in no suffix, 'a.tif' may be the stem of 'a.tif.jpg'.
            stem = stem if stem in images else strip_suffix(stem, img_suffixes)
            if stem not in images:
                raise FileNotFoundError(f"{self.ann_file} lists '{line}', but there is no such image below "
                                        f'{self.data_prefix["img_path"]} with img_suffix {self.img_suffix}')
            mask = mask or masks.get(stem, stem)
            if mask not in files:
                hint = self._hint({osp.splitext(mask)[0], mask}, mask_suffixes)
                raise FileNotFoundError(f"{self.ann_file} lists '{line}', but there is no mask {mask} below "
                                        f'{self.data_prefix["seg_map_path"]} with seg_map_suffix {self.seg_map_suffix}'
                                        f'{hint}')
            yield images[stem], mask

    def _hint(self, stems: Set[str], mask_suffixes: Sequence[str]) -> str:
        """What else lies in the folder of masks; beside the images, that is the images."""
        hint = '' if self._beside else partner_hint(self.data_prefix['seg_map_path'], stems, mask_suffixes)
        return hint and f'. {hint}'


def _by_stem(names: Sequence[str], suffixes: Sequence[str], where: str) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for name in names:
        stem = strip_suffix(name, suffixes)
        if found.setdefault(stem, name) is not name:
            raise ValueError(f"two {where} have the stem '{stem}': {found[stem]} and {name}; remove or rename one")
    return found


def _some(files: Sequence[str]) -> str:
    return ', '.join(files[:_SHOWN]) + (', ...' if len(files) > _SHOWN else '')
