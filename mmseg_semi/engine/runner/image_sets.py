"""The image sets that settings name: which images they hold, found without opening one."""
import copy
import functools
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Collection, Iterator, Optional, Tuple

from mmseg.datasets import BaseSegDataset

from mmseg_semi.datasets import PseudoLabeledDataset, UnlabeledDataset
from mmseg_semi.datasets.partition import digest
from mmseg_semi.engine.give_up import MISSING_LIST
from mmseg_semi.engine.hooks.partition_hook import images
from mmseg_semi.engine.runner.state import digest as file_digest
from mmseg_semi.registry import DATASETS

# What a config of an image set has at least one of; the registry need not be asked about every transform and layer.
KEYS = ('ann_file', 'data_prefix', 'data_root', 'folders')
MASKS = ('mask_dirs', 'on_bad_mask')
MASKS_SHA = 'masks_sha256'  # what is in the masks of a set


class MissingImages(ValueError):
    """A set whose images are not there."""


def image_set_class(node) -> Optional[type]:
    """The class of a config of one plain image set; None for anything else, such as a wrapper."""
    if not isinstance(node, dict) or not node.get('type') or not any(key in node for key in KEYS):
        return None
    kind = node['type'] if inspect.isclass(node['type']) else DATASETS.get(node['type'])
    return kind if inspect.isclass(kind) and issubclass(kind, BaseSegDataset) else None


def image_sets(node, key: str = '') -> Iterator[Tuple[str, dict]]:
    """Every config of an image set below a config node, those inside wrappers too, and its dotted key."""
    if image_set_class(node):
        yield key, node
    elif isinstance(node, (dict, list, tuple)):
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from image_sets(child, f'{key}.{name}' if key else str(name))


def listed_elsewhere(cfg: dict, made: Collection[str]) -> bool:
    """Whether an output of an earlier stage says which images a set holds."""
    def names(node) -> bool:
        if isinstance(node, dict):
            return any(names(child) for name, child in node.items() if name not in MASKS)
        if isinstance(node, (list, tuple)):
            return any(map(names, node))
        return isinstance(node, str) and node in made

    return names(cfg)


def list_images(cfg: dict, key: str) -> BaseSegDataset:
    """Builds an image set without its pipeline; neither images nor pseudo-labels are read.

    Args:
        cfg (dict): Its config.
        key (str): Dotted key of the config, for errors.

    Raises:
        MissingImages: If a folder or list is not there, or it holds no image.
        ValueError: If the set cannot be built.
    """
    kind, out = image_set_class(cfg), ['type', 'test_mode', 'exclude_by']
    if issubclass(kind, PseudoLabeledDataset):  # its masks may not be there yet
        kind, out = UnlabeledDataset, [*out, *MASKS]
    options = {name: copy.deepcopy(value) for name, value in cfg.items() if name not in out}
    options.update(pipeline=[], **({} if issubclass(kind, UnlabeledDataset) else dict(serialize_data=False)))
    try:
        dataset = kind(**options)
    except FileNotFoundError as error:
        told = f'{error.filename} is not there' if error.filename else error
        raise MissingImages(f'{key}: {told}') from error
    except (AssertionError, TypeError, ValueError) as error:
        kind = MissingImages if MISSING_LIST in str(error) else ValueError
        raise kind(f'{key}: {error}') from error
    if not len(dataset):
        raise MissingImages(f'{key}: there is no image in {dataset.ann_file or dataset.data_prefix.get("img_path")}; '
                         'expected at least one')
    return dataset


def by_images(node, made: Collection[str], key: str = '', masks: bool = True):
    """A copy of settings in which image sets count by their images, not by where they lie.

    ``data_root`` makes way for the number and the digest of the images' ids, and for the digest of what is in their
    masks, as far as they are files on a disk here: a label that was mended is another setting. Not so the masks of sets
    that only exclude images, and pseudo-labels. A set whose list is the output of an earlier stage counts by that.

    Args:
        node: Part of a stage's settings.
        made (Collection[str]): Outputs of earlier stages, as they stand in the settings.
        key (str): Its dotted key.
        masks (bool): Whether what is in masks counts.

    Raises:
        ValueError: If a set cannot be built or is empty; the message begins with its key.
    """
    if isinstance(node, (list, tuple)):
        return [by_images(child, made, f'{key}.{i}', masks) for i, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    settings = {name: by_images(child, made, f'{key}.{name}' if key else str(name), masks and name != 'exclude_sets')
                for name, child in node.items()}
    if image_set_class(node):
        settings.pop('data_root', None)
        if not listed_elsewhere(node, made):
            dataset = list_images(node, key)
            names = [name for _, name in images(dataset)]
            settings['images'] = dict(count=len(names), sha256=digest(names))
            if masks and not isinstance(dataset, UnlabeledDataset):
                files = [dataset.get_data_info(i).get('seg_map_path') for i in range(len(dataset))]
                with ThreadPoolExecutor() as threads:  # most of the time a network disk is waited for
                    lines = [' '.join(pair) for pair in zip(names, threads.map(_content, files), strict=True)]
                settings['images'][MASKS_SHA] = digest(lines)
    return settings


def _content(mask: Optional[str]) -> str:
    """SHA-256 of a mask, which is read again only if it has changed; '' if it cannot be read as a file."""
    try:
        stat = os.stat(mask)
        return _digest_of(mask, stat.st_size, stat.st_mtime_ns)
    except (OSError, TypeError):  # training says whether it needs one
        return ''


@functools.cache
def _digest_of(path: str, size: int, changed: int) -> str:
    return file_digest(Path(path))
