"""What the sums mean: findings that spoil training, and warnings."""
import os.path as osp
import shlex
from dataclasses import asdict, dataclass, field
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np

from dataset_check.common import shown
from dataset_check.leaks import Overlap
from dataset_check.sources import EVAL
from dataset_check.tally import Tally

CONVERT = 'python tools/dataset_converters/convert_masks.py'
BY_MAP = '{list} prints the values in them; write classes.txt from that, then {map}'

# Code of a problem of single files: is it an error, what it is, what to do about it.
PROBLEMS: Dict[str, Tuple[bool, str, str]] = {
    'missing_image': (True, 'images that the list names do not exist', 'mend the list, or img_suffix and data_prefix'),
    'missing_mask': (True, 'images have no mask', 'mend seg_map_suffix and data_prefix.seg_map_path, or take the '
                     'images out of the list'),
    'broken_image': (True, 'images cannot be read', 'copy them again from where they came, or set '
                     'the loading transform as its message says'),
    'broken_mask': (True, 'masks cannot be read', 'copy them again from where they came'),
    'no_mask': (True, 'images come without masks', 'add dict(type="LoadAnnotations") to the pipeline and '
                'seg_map_path to data_prefix'),
    'channels': (True, 'images have another number of channels than model.data_preprocessor.mean',
                 'set mean and std (and backbone.in_channels) to the bands that the pipeline loads'),
    'color_mask': (True, 'masks hold colors, not class indices', BY_MAP),
    'wide_mask': (True, 'masks hold values that are no whole numbers of 8 bits, and are cut when loaded',
                  BY_MAP),
    'wrong_labels': (True, 'masks hold labels that are no class', ''),
    'size_mismatch': (True, 'masks have another size than their images', 'resize the masks by nearest neighbour, or '
                      'find their true images'),
    'exif_size': (True, 'images are turned by their EXIF orientation when loaded, their masks are not',
                  'write the rotation into the pixels of the images (PIL.ImageOps.exif_transpose)'),
    'exif': (False, 'images are turned or mirrored by their EXIF orientation when loaded, masks never are',
             'look at them in the report; to be safe write the rotation into the pixels'),
    'wide_image': (False, 'images have more than 8 bits per channel and are cut to 8 when loaded',
                   'scale them to 8 bits yourself, or load them with all bits'),
    'alpha': (False, 'images have an alpha channel, which is dropped when loaded',
              'see that the colors below transparent pixels are harmless'),
    'pipeline': (True, 'the first sound sample fails in the pipeline', 'mend the transform that is named'),
    'empty_mask': (False, 'masks hold nothing but the ignored label', 'such images teach nothing'),
}


@dataclass
class Finding:
    """One thing to know.

    Attributes:
        level (str): 'error' (it would spoil training or its measurement) or 'warning'.
        code (str): Name of the kind, see docs/check_dataset.md.
        source (str): Name of the source, or both of them.
        message (str): What was found.
        hint (str): What to do.
        count (int): How many files; 0 where it is about the whole.
        examples (list): ``(text, place in the source)`` of the first files.
    """
    level: str
    code: str
    source: str
    message: str
    hint: str = ''
    count: int = 0
    examples: List[Tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Messages and commands may name files in any encoding.
        self.message, self.hint = shown(self.message), shown(self.hint)

    def plain(self) -> dict:
        """For JSON."""
        return dict(asdict(self), examples=[text for text, _ in self.examples])


def find(tallies: Sequence[Tally], overlaps: Iterable[Overlap], failed: Dict[str, List[str]]) -> List[Finding]:
    """All findings, errors first; ``failed``: why settings could not be built, from ``read_sources``."""
    found = [Finding('error', 'cannot_build', ', '.join(settings), reason,
                     'mend this and check again; the rest was checked without it')
             for reason, settings in failed.items()]
    found += [*_model(tallies), *_files(tallies), *_masks(tallies), *_masks_in_pool(tallies), *_classes(tallies),
              *map(_overlap, overlaps)]
    if failed:  # the labels may be among what could not be built
        found = [finding for finding in found if finding.code != 'no_labeled']
    return sorted(found, key=lambda finding: finding.level != 'error')


def _model(tallies: Sequence[Tally]) -> Iterator[Finding]:
    """Classes of the model, of the training set and of the evaluation sets."""
    names = {tally.source.name: tally.source.classes for tally in tallies if tally.source.role != 'unlabeled'}
    if not any(tally.source.role == 'labeled' for tally in tallies):
        yield Finding('warning', 'no_labeled', 'train', 'the config trains on no labeled images',
                      'name them in train_dataloader.dataset')
    for tally in tallies:
        source, limit = tally.source, tally.source.model.num_classes
        if source.role == 'unlabeled':
            continue
        if not source.classes:
            yield Finding('warning', 'no_classes', source.name, 'neither the data set nor '
                          'model.decode_head.num_classes says how many classes there are, so labels were not judged',
                          'set metainfo.classes')
        elif limit is not None and limit != len(source.classes):
            yield Finding('error', 'num_classes', source.name, f'the data set has {len(source.classes)} classes, '
                          f'model.decode_head.num_classes is {limit}', 'make them equal')
    trained = next((name for name in names if name.startswith('labeled')), None)
    for name, classes in names.items():
        if trained and classes != names[trained]:
            yield Finding('error', 'class_names', f'{trained}, {name}',
                          'the classes differ in names or order: ' + _difference(names[trained], classes),
                          'give both sets the same metainfo.classes')


def _difference(one: Sequence[str], two: Sequence[str]) -> str:
    if len(one) != len(two):
        return f'{len(one)} and {len(two)} classes'
    place = next(i for i, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1])
    return f'class {place} is {one[place]!r} and {two[place]!r}'


def _files(tallies: Sequence[Tally]) -> Iterator[Finding]:
    """Problems of single files."""
    for tally in tallies:
        for code, problem in tally.problems.items():
            error, message, hint = PROBLEMS[code]
            if code == 'wrong_labels':
                hint = _label_hint(tally)
            if hint == BY_MAP:
                hint = _by_map(tally)
            if code == 'empty_mask' and _is_binary(tally):
                continue  # told as binary masks
            message = message if code == 'pipeline' else f'{problem.count} of {len(tally.files)} {message}'
            # A source without any mask is a mistake of the config; a test set may well have none.
            level = 'warning' if code == 'no_mask' and tally.source.role == 'test' else 'error' if error else 'warning'
            yield Finding(level, code, tally.source.name, message, hint, problem.count, problem.examples)


def _convert(tally: Tally, option: str) -> str:
    """The command that converts the masks of a source; ``--list`` only looks at them."""
    images, folder = (osp.normpath(tally.source.dataset.data_prefix.get(key) or 'MASKS')
                      for key in ('img_path', 'seg_map_path'))
    suffix = tally.source.dataset.seg_map_suffix
    words = [folder] if option == '--list' else [folder, f'{folder}_indices']
    if images == folder and isinstance(suffix, str):
        words += ['--suffix', suffix]
    return f'{CONVERT} {shlex.join([*words, *option.split()])}'


def _by_map(tally: Tally) -> str:
    return BY_MAP.format(list=_convert(tally, '--list'), map=_convert(tally, '--map classes.txt'))


def _is_binary(tally: Tally) -> bool:
    return tally.masks > 0 and set(np.flatnonzero(tally.pixels)) <= {0, 255} and tally.pixels[255] > 0 and \
        tally.source.model.ignore_index == 255 and len(tally.source.classes) > 1


def _label_hint(tally: Tally) -> str:
    """What kind of masks the labels look like."""
    values, limit = np.flatnonzero(tally.pixels), len(tally.source.classes)
    inside = [value for value in values if value != tally.source.model.ignore_index]
    expected = f'expected 0..{limit - 1} or {tally.source.model.ignore_index} (ignore)'
    if tally.mask_formats.get('JPEG'):
        return f'{expected}; the masks are JPEG files, whose compression changes labels: export them again as PNG'
    if len(inside) <= 2 and limit == 2 and inside[-1] > 1:
        return f'{expected}; these look like masks of two gray values: {_convert(tally, "--binary")}'
    if inside and inside[0] > 0 and inside[-1] == limit:
        return (f'{expected}; these look like labels counted from 1: set reduce_zero_label=True in the data set (0 '
                'then becomes ignored)')
    return f'{expected}; are classes missing in metainfo.classes? Else {_by_map(tally)}'


def _masks(tallies: Sequence[Tally]) -> Iterator[Finding]:
    """Masks of 0 and 255: every label is legal, and the object is never trained."""
    for tally in tallies:
        if tally.source.role != 'unlabeled' and _is_binary(tally):
            yield Finding('error', 'binary_masks', tally.source.name,
                          f'the masks hold 0 and 255 only, and 255 means ignore: {tally.source.classes[1]!r} is never '
                          'trained', _convert(tally, '--binary'))


def _masks_in_pool(tallies: Sequence[Tally]) -> Iterator[Finding]:
    """Folders of the pool that look like masks: PNGs of one channel with the names of other images."""
    stems = [folder.stems for tally in tallies for folder in tally.folders.values() if not folder.flat]
    for tally in tallies:
        for path, folder in tally.folders.items() if tally.source.role == 'unlabeled' else ():
            if folder.flat and any(folder.stems <= other for other in stems):
                yield Finding('warning', 'masks_in_pool', tally.source.name, f'{path} holds {len(folder.stems)} PNGs '
                              'of one channel with the names of images in another folder: masks train as photographs',
                              'if they are masks, take the folder out of the pool', len(folder.stems),
                              [(shown(path), folder.place)])


def _classes(tallies: Sequence[Tally]) -> Iterator[Finding]:
    """Classes that no labeled image shows."""
    labeled = [tally for tally in tallies if tally.source.role == 'labeled' and tally.masks]
    if not labeled or any(_is_binary(tally) for tally in labeled):
        return
    names = labeled[0].source.classes
    absent = [c for c in range(min(len(names), 256)) if not any(tally.pixels[c] for tally in labeled)]
    measured = [c for c in absent if any(tally.pixels[c] for tally in tallies if tally.source.role in EVAL)]
    for level, classes, more in (('error', measured, ', but the evaluation does: their IoU will be 0'),
                                 ('warning', [c for c in absent if c not in measured], '')):
        if classes:
            yield Finding(level, 'missing_class', ', '.join(tally.source.name for tally in labeled),
                          f'no labeled image shows {", ".join(names[c] for c in classes)}{more}',
                          'label an image that shows them, or take them out of metainfo.classes', len(classes))


def _overlap(overlap: Overlap) -> Finding:
    """A shared image is a leak where one side is evaluated and the other trained on."""
    one, two = overlap.first.source, overlap.second.source
    rest = dict(count=overlap.count, examples=overlap.examples)
    if one is two:
        return Finding('warning', 'double', one.name, f'{overlap.count} images are there twice, by {overlap.by}',
                       'they count double; take them out of the list', **rest)
    names, message = f'{one.name}, {two.name}', f'{overlap.count} images are in {one.name} and in {two.name}, by ' \
        f'{overlap.by}'
    sides = {one.role in EVAL, two.role in EVAL}
    if sides == {True, False}:
        return Finding('error', 'leak', names, f'{message}: the evaluation is on images of the training',
                       f'take them out of the training lists ({_exclude(overlap)} of UnlabeledDataset does it)', **rest)
    if one.role == two.role:
        return Finding('warning', 'double', names, message, 'they count double', **rest)
    if sides == {True}:
        return Finding('warning', 'overlap', names, message, 'a choice made on the one shows in the other', **rest)
    return Finding('warning', 'overlap', names, f'{message}: they also train as unlabeled ones',
                   f'harmless, but no new information; {_exclude(overlap)} leaves them out', **rest)


def _exclude(overlap: Overlap) -> str:
    return "exclude_by='content'" if overlap.by == 'content' else 'the option exclude_sets'
