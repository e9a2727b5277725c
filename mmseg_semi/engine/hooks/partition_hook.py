"""Says on which images a run is trained and judged, and keeps it in the checkpoints."""
import json
import os
import os.path as osp
from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence, Set, Tuple

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.datasets.exclusion import RealPaths
from mmseg_semi.datasets.image_lists import IMG_SUFFIXES
from mmseg_semi.datasets.partition import digest, list_id, partition_name
from mmseg_semi.datasets.path_list import PathList
from mmseg_semi.datasets.self_training import SelfTrainingDataset
from mmseg_semi.datasets.unlabeled import SemiDataset
from mmseg_semi.registry import HOOKS

KEY = 'partition'


def sources(dataset) -> Iterator:
    """The image sets of which a data set is made: wrappers are opened."""
    parts = getattr(dataset, 'datasets', None) or [getattr(dataset, key) for key in ('dataset', 'primary')
                                                   if hasattr(dataset, key)]
    if not parts:
        yield dataset
    for part in parts:
        yield from sources(part)


def split_sides(dataset) -> Dict[str, object]:
    """The labeled and, if there is one, the unlabeled part of a training set."""
    if not isinstance(dataset, (SemiDataset, SelfTrainingDataset)):
        return dict(labeled=dataset)
    # In self-training the labeled set is repeated, and the pseudo-labeled one is last, if it holds anything.
    labeled, other = dataset.datasets[0], dataset.datasets[-1]
    return dict(labeled=labeled) if other is labeled else dict(labeled=labeled, unlabeled=other)


def paths(dataset) -> Iterator[str]:
    """Paths of the images of a set."""
    if isinstance(getattr(dataset, 'data_list', None), PathList):
        yield from map(dataset.data_list.path, range(len(dataset)))  # a million records would take a while to copy
        return
    for i in range(len(dataset)):
        path = dataset.get_data_info(i).get('img_path')
        if path is not None:
            yield path


def image_folder(dataset) -> str:
    """The folder to which the ids of a set are relative, '' if it names none."""
    return ((getattr(dataset, 'data_prefix', None) or {}).get('img_path') or '').rstrip('/\\')


def images(dataset) -> Iterator[Tuple[str, str]]:
    """Path and id of the images of a set; an id is the path below its image folder, without suffix.

    Folders outside of the data root have no common parent but that of the whole machine: there an id begins with the
    name of its folder.

    Args:
        dataset (BaseSegDataset): Or anything with ``get_data_info``.
    """
    suffix = getattr(dataset, 'img_suffix', ())
    suffixes = (*IMG_SUFFIXES, *([suffix] if isinstance(suffix, str) else suffix))
    folder = image_folder(dataset)
    far = folder_names(getattr(dataset, 'far_folders', ()))
    for path in paths(dataset):
        start = next((start for start in far if path.startswith(start)), None)
        if start is not None:
            yield path, list_id(far[start] + path[len(start):], suffixes)
        else:
            yield path, list_id(path[len(folder):] if path.startswith(folder) else path, suffixes)


def folder_names(folders: Sequence[str]) -> Dict[str, str]:
    """Folders, with a separator at the end -> their last parts, as many as tell them apart, likewise."""
    parts = [Path(folder).parts for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ['/'.join(part[-length:]) + '/' for part in parts]
        if len(set(names)) == len(names):
            return {osp.join(folder, ''): name for folder, name in zip(folders, names, strict=True)}
    return {}


def image_ids(sets: Sequence) -> Set[str]:
    """Ids of the images of several sets, an image that some of them share once.

    Below different folders one id may name two images (``site_a/000.jpg``, ``site_b/000.jpg``): such ids begin with
    their folder, seen from the common parent of all. All others are the same wherever the data lie.

    Args:
        sets (Sequence[BaseSegDataset]): Without wrappers, see :func:`sources`.
    """
    by_folder: Dict[str, list] = {}
    for one in sets:
        by_folder.setdefault(osp.realpath(image_folder(one)), []).append(one)
    if len(by_folder) < 2:  # nearly always: no path has to be looked at
        return {name for one in sets for _, name in images(one)}
    real, seen, ids = RealPaths(), set(), {}
    for folder in sorted(by_folder):  # an image below two of the folders has the id that the outer one gives
        ids[folder] = set()
        for one in by_folder[folder]:
            ids[folder].update(name for path, name in images(one) if real(path) not in seen)
        seen.update(real(path) for one in by_folder[folder] for path in paths(one))
    once, twice = set(), set()
    for names in ids.values():
        twice |= once & names
        once |= names
    # The folders as the config names them: a link to a disk may lead elsewhere on the next machine.
    named = {folder: min(osp.abspath(image_folder(one)) for one in parts) for folder, parts in by_folder.items()}
    parent = osp.commonpath(named.values())

    def below_parent(folder: str, name: str) -> str:
        return osp.normpath(osp.join(osp.relpath(named[folder], parent), name)).replace(os.sep, '/')

    while True:
        long = {below_parent(folder, name) for folder, names in ids.items() for name in names & twice}
        clash = long & (once - twice)  # an id that begins with its folder is the short one of another image
        if not clash:
            return long | (once - twice)
        twice |= clash


def describe(dataset) -> Dict[str, object]:
    """Count and digest of one side.

    Returns:
        dict: ``count`` (images, one that several sets share counted once), ``sha256``, ``name`` if a list gives it.
    """
    parts = list(sources(dataset))
    ids = image_ids([part for part in parts if hasattr(part, 'get_data_info')])
    name = ' + '.join(sorted({name for name in (_name(getattr(part, 'ann_file', None)) for part in parts) if name}))
    return dict(count=len(ids), sha256=digest(ids), **(dict(name=name) if name else {}))


def _name(ann_file: Optional[str]) -> Optional[str]:
    """What ``make_partition.py`` wrote beside the list, else the list's own path."""
    info = Path(ann_file).parent / 'partition.json' if ann_file else None
    try:
        return json.loads(info.read_text(encoding='utf-8'))['name']
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return partition_name(ann_file)


@HOOKS.register_module()
class PartitionHook(Hook):
    """Logs name, count and SHA-256 of the labeled, unlabeled and validation images; they are part of a checkpoint.

    "1/16" names different lists in different papers; the digest names the images. It does not depend on where the
    data lie, nor on the order of a list. ``checkpoint['meta']['partition']`` holds it.

    Raises:
        ValueError: If a run is resumed on other labeled or unlabeled images. A run that starts from a checkpoint
            (``load_from``) may use any.
    """

    priority = 'VERY_HIGH'  # before anything is trained on the wrong images

    def __init__(self) -> None:
        self.partition: Dict[str, dict] = {}
        self.loaded: Dict[str, dict] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers the images of the checkpoint."""
        self.loaded = checkpoint.get('meta', {}).get(KEY) or {}

    def before_train(self, runner: Runner) -> None:
        """Logs, and compares with the run that is resumed."""
        sides = split_sides(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            sides['val'] = runner.val_dataloader.dataset
        self.partition = {side: describe(part) for side, part in sides.items()}
        for side, part in self.partition.items():
            runner.logger.info(f'Partition, {side}: {part.get("name", "no list")}, {part["count"]} images, '
                               f'SHA-256 {part["sha256"]}')
        if runner.iter > 0:  # a run that only loads weights begins at 0
            self._compare()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stores it."""
        checkpoint['meta'][KEY] = self.partition

    def _compare(self) -> None:
        for side in ('labeled', 'unlabeled'):
            before, now = self.loaded.get(side), self.partition.get(side)
            if before and now and before['sha256'] != now['sha256']:
                raise ValueError(
                    f'cannot resume: the checkpoint was trained on {before["count"]} {side} images '
                    f'({before.get("name", "no list")}, SHA-256 {before["sha256"][:16]}), this config has '
                    f'{now["count"]} ({now.get("name", "no list")}, SHA-256 {now["sha256"][:16]}); set the lists back, '
                    'or begin a new run from its weights with load_from and without --resume')
