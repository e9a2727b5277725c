"""The sets of images that a config names, by the public interface of mmseg's datasets."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import init_default_scope

from dataset_check.common import UserError, one_line
from mmseg_semi.datasets import SemiDataset
from mmseg_semi.registry import DATASETS

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
TRAIN, EVAL = ('labeled', 'unlabeled'), ('val', 'test')
EMPTY = 'it holds no image: look at data_root, data_prefix, ann_file and img_suffix'


@dataclass
class Model:
    """What the config's model expects of the data; None where the config does not say."""
    num_classes: Optional[int] = None
    channels: Optional[int] = None
    ignore_index: int = 255


@dataclass
class Source:
    """One list of images.

    Attributes:
        name (str): Unique: the role, with a number behind it where there are several.
        role (str): 'labeled', 'unlabeled', 'val' or 'test'.
        dataset: An mmseg dataset.
        model (Model): What the masks and channels are judged by.
        same_as (str, optional): Source with the very same files, which is checked in place of this one.
        image_loaders, mask_loaders (list): The loading transforms of its pipeline.
        places (Sequence[int]): Indices to look at; those of a folder with a weight only once.
    """
    name: str
    role: str
    dataset: Any
    model: Model
    same_as: Optional[str] = None
    image_loaders: list = field(init=False)
    mask_loaders: list = field(init=False)
    places: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        # Whatever loads: mmseg's transforms, ours and the user's own follow this convention of names.
        loaders = [t for t in self.dataset.pipeline.transforms if type(t).__name__.startswith('Load')]
        self.mask_loaders = [t for t in loaders if isinstance(t, LoadAnnotations) or 'Annotation' in type(t).__name__]
        # Lists for the stages of self-training have no pipeline of their own.
        self.image_loaders = [t for t in loaders if t not in self.mask_loaders] or [LoadImageFromFile()]
        if self.role == 'unlabeled':
            self.mask_loaders = []  # never opened
        self.places = range(len(self.dataset))
        if any(getattr(folder, 'weight', 1) != 1 for folder in getattr(self.dataset, 'folders', ())):
            self.places = list({self.dataset.get_data_info(i)['img_path']: i for i in reversed(self.places)}.values())
            self.places.reverse()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the classes; numbers where the data set has no names."""
        names = self.dataset.metainfo.get('classes')
        return tuple(map(str, names or (f'class {c}' for c in range(self.model.num_classes or 0))))

    @property
    def stock(self) -> bool:
        """Whether images are loaded by mmcv's own transform, which reads 8 bits and three channels."""
        return all(isinstance(loader, LoadImageFromFile) for loader in self.image_loaders)

    @property
    def palette(self) -> np.ndarray:
        """Colors of the classes, RGB uint8 [C, 3]."""
        colors = self.dataset.metainfo.get('palette') or []
        if len(colors) != len(self.classes):
            colors = np.random.RandomState(42).randint(0, 255, (len(self.classes), 3))
        return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def read_config(path: str, options: Optional[dict]) -> Config:
    """Reads a config; relative paths in it start at the current directory, as in training.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:  # a config is a program: it may fail in any way
        raise UserError(f'cannot read the config {path}: {one_line(error)}') from error
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return cfg


def read_model(cfg: Config) -> Model:
    """What the config's model says about the data."""
    model = cfg.get('model') or {}
    head = model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    mean = (model.get('data_preprocessor') or {}).get('mean')
    return Model(head.get('num_classes'), len(mean) if mean else None, head.get('ignore_index', 255))


def read_sources(cfg: Config) -> Tuple[List[Source], Dict[str, List[str]]]:
    """Every list of images of a config.

    Returns:
        tuple: The sources that can be built, and of the others the reason and the settings that it holds for.

    Raises:
        UserError: If the config names none, or none can be built.
    """
    model, found, failed = read_model(cfg), [], {}
    for key in LOADERS:
        settings = (cfg.get(key) or {}).get('dataset')
        if settings is not None:
            found += _sets(key.split('_')[0], f'{key}.dataset', settings, failed)
        if key == LOADERS[0] and cfg.get('self_training') and isinstance(cfg.get('unlabeled'), dict):
            found += _sets('train', 'unlabeled', cfg.unlabeled, failed, 'unlabeled')  # what its stages label
    if not found:
        raise UserError('; '.join(f'cannot build {", ".join(names)}: {reason}' for reason, names in failed.items())
                        or f'the config has no {", ".join(LOADERS)} with a dataset')
    sources: List[Source] = []
    for role, dataset in found:
        number = sum(source.role == role for source in sources)
        several = sum(other == role for other, _ in found) > 1
        sources.append(Source(f'{role}.{number}' if several else role, role, dataset, model))
    _mark_twins(sources)
    return sources, failed


def _sets(loader: str, setting: str, settings: dict, failed: Dict[str, List[str]],
          role: Optional[str] = None) -> List[Tuple[str, Any]]:
    """The plain data sets of a setting, each with its role; ``failed`` takes what cannot be built."""
    try:
        return list(_parts(loader, _build(settings), role))
    except UserError as error:
        before, found = sum(map(len, failed.values())), []
        if all(isinstance(settings.get(half), dict) for half in TRAIN):  # of a SemiDataset, one may be sound
            found = [one for half in TRAIN for one in _sets(loader, f'{setting}.{half}', settings[half], failed, half)]
        if sum(map(len, failed.values())) == before:  # the halves are sound: it is the whole
            failed.setdefault(str(error), []).append(setting)
        return found


def _build(settings: dict) -> Any:
    try:
        dataset = DATASETS.build(settings)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        return dataset
    except Exception as error:  # whatever a data set raises is a mistake of the config here
        text = one_line(error)
        if 'at least one array to concatenate' in text:
            text = EMPTY
        where = ''
        if isinstance(error, (FileNotFoundError, AssertionError, ValueError)):
            where = f' (relative paths start at {Path.cwd()})'
        raise UserError(f'{text}{where}') from error


def _parts(loader: str, dataset: Any, role: Optional[str] = None) -> Iterator[Tuple[str, Any]]:
    """The plain data sets inside wrappers, each with its role."""
    if isinstance(dataset, SemiDataset):
        for part, part_role in zip(dataset.datasets, TRAIN, strict=True):
            yield from _parts(loader, part, part_role)
    elif hasattr(dataset, 'datasets'):  # a concatenation
        for part in dataset.datasets:
            yield from _parts(loader, part, role)
    elif hasattr(dataset, 'primary') and hasattr(dataset, 'labeled'):  # GuidedPairDataset
        yield from _parts(loader, dataset.primary, role)
    elif hasattr(dataset, 'dataset'):  # a repeated or balanced set
        yield from _parts(loader, dataset.dataset, role)
    elif not (hasattr(dataset, 'get_data_info') and hasattr(dataset, 'pipeline') and hasattr(dataset, 'metainfo')):
        raise UserError(f'{loader}_dataloader holds a {type(dataset).__name__}; expected data sets like mmseg\'s, with '
                        'get_data_info, pipeline and metainfo')
    elif not len(dataset):
        raise UserError(EMPTY)
    elif loader != 'train':
        yield loader, dataset
    else:
        reads_masks = any(isinstance(t, LoadAnnotations) for t in dataset.pipeline.transforms)
        yield role or ('labeled' if reads_masks else 'unlabeled'), dataset


def _mark_twins(sources: List[Source]) -> None:
    """Marks a test set that is the validation set under another name, as in most configs."""
    def files(source):
        infos = (source.dataset.get_data_info(i) for i in source.places)
        return [(info['img_path'], info.get('seg_map_path')) for info in infos]

    for test in (source for source in sources if source.role == 'test'):
        for val in (source for source in sources if source.role == 'val' and len(source) == len(test)):
            if files(test) == files(val) and test.classes == val.classes:
                test.same_as = val.name
