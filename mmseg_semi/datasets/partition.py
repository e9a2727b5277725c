"""Which images are labeled: lists, their digests, and the published partitions by name.

A list holds one image a line; an id is its path below the image folder without suffix, with ``/`` between folders.
Published lists come in three forms (``image mask``, ``image<tab>mask``, bare ids) and name one image differently;
:class:`Family` brings them to one.
"""
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union

from mmseg_semi.datasets import image_lists
from mmseg_semi.datasets.image_lists import first, strip_suffix

KINDS = ('labeled', 'unlabeled')


@dataclass(frozen=True)
class Family:
    """Partitions of one data set that come from one set of lists.

    Attributes:
        pattern (str): Finds the name of an image in the first field of a line.
        line (str): How our lists write that name; filled with the groups of ``pattern``.
        settings (dict): Number of labeled images -> (fraction as the papers write it, number of unlabeled images).
        places (tuple[str, ...]): Where released code keeps the lists; ``{kind}``, ``{count}`` and ``{fraction}``.
        fine (dict): Labeled images with a mask of VOC's own 1,464, which tells the two families of VOC apart.
    """
    pattern: str
    line: str
    settings: Dict[int, Tuple[str, int]]
    places: Tuple[str, ...]
    fine: Dict[int, int] = field(default_factory=dict)


VOC = dict(pattern=r'(\d{4}_\d{6})', line=r'\1')
BLENDED = {662: ('1_16', 9920), 1323: ('1_8', 9259), 2646: ('1_4', 7936), 5291: ('1_2', 5291)}
CITY = dict(pattern=r'([a-z-]+)_(\d{6}_\d{6})', line=r'\1/\1_\2')
PLAIN = '{kind}.txt'  # a folder of two lists
UNIMATCH = ('splits/{set}/{name}/{{kind}}.txt', 'partitions/{set}/{name}/{{kind}}.txt')


def _unimatch(dataset: str, name: str) -> Tuple[str, ...]:
    return tuple(place.format(set=dataset, name=name) for place in UNIMATCH)


def _difference(total: int, fractions: Dict[int, str]) -> Dict[int, Tuple[str, int]]:
    return {count: (fraction, total - count) for count, fraction in fractions.items()}


# Counts: methods/common.md section 7; places: the released repositories.
FAMILIES = {
    'voc_classic': Family(
        **VOC, settings=_difference(10582, {n: str(n) for n in (92, 183, 366, 732, 1464)}),
        places=(*_unimatch('pascal', '{count}'), 'data/splits/pascal/{count}/{kind}.txt')),
    'voc_blended_cps': Family(
        **VOC, settings=BLENDED, fine={662: 93, 1323: 193, 2646: 388, 5291: 742},
        places=(*_unimatch('pascal', '{fraction}'),
                'DATA/pascal_voc/subset_train_aug/train_aug_{kind}_{dashed}.txt')),
    'voc_blended_u2pl': Family(
        **VOC, settings=BLENDED, fine={662: 662, 1323: 1323, 2646: 1464, 5291: 1464},
        places=(*_unimatch('pascal', 'u2pl_{fraction}'), 'data/splits/pascal/{count}/{kind}.txt')),
    'cityscapes_cps': Family(
        **CITY, settings=_difference(2975, {100: '1_30', 186: '1_16', 372: '1_8', 744: '1_4', 1488: '1_2'}),
        places=(*_unimatch('cityscapes', '{fraction}'),
                'DATA/city/config_new/subset_train/train_aug_{kind}_{dashed}.txt')),
    'cityscapes_u2pl': Family(
        **CITY, settings=_difference(2975, {186: '1_16', 372: '1_8', 744: '1_4', 1488: '1_2'}),
        places=('data/splits/cityscapes/{count}/{kind}.txt', )),
    'coco': Family(
        pattern=r'(\d{12})', line=r'\1', places=_unimatch('coco', '{fraction}'),
        settings=_difference(118287, {232: '1_512', 463: '1_256', 925: '1_128', 1849: '1_64', 3697: '1_32'})),
    'ade20k': Family(
        pattern=r'(ADE_train_\d{8})', line=r'\1',
        places=(*_unimatch('ade20k', '{fraction}'), 'splits/ade/{fraction}/{kind}.txt'),
        settings=_difference(20210, {158: '1_128', 316: '1_64', 631: '1_32', 1263: '1_16', 2526: '1_8', 5052: '1_4',
                                     10105: '1_2'})),
}


def choices() -> str:
    """All published partitions, a line per family."""
    return '\n'.join(f'  {name}: {", ".join(map(str, family.settings))}' for name, family in FAMILIES.items())


def digest(ids: Iterable[str]) -> str:
    """SHA-256 of a list as a set: order, suffixes and where the images lie do not count.

    A name that is no UTF-8 counts by its bytes.
    """
    return hashlib.sha256('\n'.join(sorted(ids)).encode('utf-8', 'surrogateescape')).hexdigest()


def read_list(path: Union[str, Path]) -> List[str]:
    """The images of a list, as written, masks left out.

    Args:
        path (str or Path): Text file of any published form.

    Returns:
        list[str]: In the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it names an image twice, or none.
    """
    lines = [first(line) for line in image_lists.read_list(str(path))]
    if not lines:
        raise ValueError(f'{path}: the list is empty')
    if len(set(lines)) < len(lines):
        seen = set()
        twice = next(line for line in lines if line in seen or seen.add(line))
        raise ValueError(f'{path}: {len(lines) - len(set(lines))} images stand twice, such as {twice}')
    return lines


def list_id(line: str, suffixes: Sequence[str]) -> str:
    """Id of a line: its suffix goes, the longest that fits; backslashes become ``/``."""
    return strip_suffix(line.replace('\\', '/'), [suffix.lower() for suffix in suffixes]).lstrip('/')


def published(checkout: Union[str, Path], family: str, setting: Union[str, int],
              images: Optional[Iterable[str]] = None) -> Tuple[Dict[str, List[str]], bool]:
    """A published partition in our form, from a checkout of released code or a folder of its two lists.

    Args:
        checkout (str or Path): Where the lists are.
        family (str): A key of ``FAMILIES``.
        setting (str or int): Number of labeled images. A fraction such as ``'1/16'`` is refused: it names different
            lists in different papers.
        images (Iterable[str], optional): Names of all images of the data set: where the checkout holds the labeled list
            only, the others are the unlabeled one.

    Returns:
        tuple[dict[str, list[str]], bool]: ``labeled`` and ``unlabeled`` ids; whether the place of the lists tells the
        family. A plain folder of two lists does not: families of one data set agree in their counts.

    Raises:
        FileNotFoundError: If the checkout has no such lists; the message tells where they were looked for.
        ValueError: If the partition is unknown or its lists are not the published ones.
    """
    if family not in FAMILIES:
        raise ValueError(f'no family of partitions is named {family!r}; there are\n{choices()}')
    known = FAMILIES[family]
    if not str(setting).isdigit() or int(setting) not in known.settings:
        raise ValueError(f'{family} has no partition {str(setting)!r}: name it by its number of labeled images, since '
                         f'a fraction means different lists in different papers; there are\n{choices()}')
    count = int(setting)
    rest = known.settings[count][1]
    if not Path(checkout).is_dir():
        raise FileNotFoundError(f'folder not found: {checkout}')
    place, files = _find_lists(Path(checkout), family, count, images is not None)
    ids = {kind: [_published_id(known, line, files[kind]) for line in read_list(files[kind])]
           for kind in KINDS if files[kind].is_file()}
    if 'unlabeled' not in ids:
        everything = {_published_id(known, name, Path('--img-dir')) for name in images}
        absent = sorted(set(ids['labeled']) - everything)
        if absent:
            raise ValueError(f'--img-dir lacks {len(absent)} images of {files["labeled"]}, such as {absent[0]}')
        ids['unlabeled'] = sorted(everything - set(ids['labeled']))
        files['unlabeled'] = Path('--img-dir')
    for kind, expected in zip(KINDS, (count, rest), strict=True):
        if len(set(ids[kind])) != expected:
            hint = (f'it must hold the {count + rest} training images alone' if files[kind] == Path('--img-dir')
                    else 'this is another list')
            raise ValueError(f'{files[kind]}: {len(set(ids[kind]))} different images, but {family} {count} has '
                             f'{expected} {kind} ones; {hint}')
    check_disjoint(ids['labeled'], ids['unlabeled'], 'labeled', 'unlabeled')
    return ids, place != PLAIN


def _find_lists(checkout: Path, family: str, count: int, half_will_do: bool) -> Tuple[str, Dict[str, Path]]:
    """Where a checkout holds a partition: the pattern of the place and both files, of which half may be missing."""
    fraction = FAMILIES[family].settings[count][0]
    words = dict(count=count, fraction=fraction, dashed=fraction.replace('_', '-'))
    places = (*FAMILIES[family].places, PLAIN)
    tried = [(place, {kind: checkout / place.format(kind=kind, **words) for kind in KINDS}) for place in places]
    whole = [(place, files) for place, files in tried if all(file.is_file() for file in files.values())]
    half = [(place, files) for place, files in tried if files['labeled'].is_file() and half_will_do]
    if not whole + half:
        looked = ', '.join(place.format(kind='labeled', **words) for place in places)
        raise FileNotFoundError(f'no lists of {family} {count} in {checkout}: looked for {looked} and unlabeled.txt '
                                'beside each' + ('' if half_will_do else ', or, if there is only the labeled one, give '
                                                 '--img-dir, the images'))
    return (whole + half)[0]


def _published_id(family: Family, line: str, file: Path) -> str:
    found = re.findall(family.pattern, line.rsplit('/', 1)[-1])
    if len(found) != 1:
        raise ValueError(f'{file}: {line!r} names no image of this data set')
    return re.search(family.pattern, line.rsplit('/', 1)[-1]).expand(family.line)


def check_fine(family: str, labeled: Sequence[str], fine: Iterable[str]) -> None:
    """Compares how many labeled images have a mask of VOC's own with what the family is known for.

    Args:
        family (str): A key of ``FAMILIES``.
        labeled (Sequence[str]): Its labeled ids.
        fine (Iterable[str]): Ids of ``ImageSets/Segmentation/train.txt``.

    Raises:
        ValueError: If the numbers differ: the lists are the other family's.
    """
    expected = FAMILIES[family].fine.get(len(labeled))
    if expected is None:
        raise ValueError(f'{family} {len(labeled)}: nothing is known about its fine masks; leave --fine-list out')
    found = len(set(labeled) & set(fine))
    if found != expected:
        raise ValueError(f'{family} {len(labeled)} has {expected} labeled images with a mask of VOC itself, found '
                         f'{found}: these are the lists of another family')


def same_images(one: Iterable[str], other: Iterable[str]) -> List[Tuple[str, str]]:
    """Images that two lists share, also where the lists write them in different forms.

    Ids are the same image if they are equal, or if one ends in ``/`` and the other: ``2007_000032`` is
    ``JPEGImages/2007_000032``, but ``a/1`` is not ``b/1``. The second counts between lists of different forms only.
    Where a list itself uses the folders of both ids, its images of a folder are no other folder's: ``1`` beside
    ``site_b/1`` are two images.

    Args:
        one (Iterable[str]): Ids of :func:`list_id`.
        other (Iterable[str]): Ids of another list.

    Returns:
        list[tuple[str, str]]: Id in ``one``, id in ``other``; sorted.
    """
    one, other = set(one), set(other)
    pairs = {(name, name) for name in one & other}
    folders, other_folders = ({name.rpartition('/')[0] for name in ids} for ids in (one, other))
    pairs.update((tail, name) for tail, name in _tails(one, folders, other, other_folders))
    pairs.update((name, tail) for tail, name in _tails(other, other_folders, one, folders))
    return sorted(pairs)


def _tails(short: Set[str], short_folders: Set[str], long: Set[str],
           long_folders: Set[str]) -> Iterator[Tuple[str, str]]:
    """Ids of ``short`` that ids of ``long`` end in, and these. A look-up per folder of an id, no comparison of all."""
    if long_folders == {''}:
        return
    for name in long:
        tail = name.partition('/')[2]
        while tail:
            if tail in short and tail.rpartition('/')[0] not in long_folders and (
                    name.rpartition('/')[0] not in short_folders):
                yield tail, name
            tail = tail.partition('/')[2]


def check_disjoint(one: Iterable[str], other: Iterable[str], name: str, other_name: str,
                   one_form: bool = False) -> None:
    """Refuses lists that share an image.

    Args:
        one (Iterable[str]): Ids of :func:`list_id`.
        other (Iterable[str]): Ids of another list.
        name (str): What the first list is, for the message.
        other_name (str): What the other one is.
        one_form (bool): Whether both lists are known to write an image in the same way; else see :func:`same_images`.

    Raises:
        ValueError: With the number of shared images and one of them.
    """
    shared = sorted((same, same) for same in set(one) & set(other)) if one_form else same_images(one, other)
    if shared:
        first, second = shared[0]
        count = len({image for image, _ in shared})
        raise ValueError(f'{count} images are both {name} and {other_name}, such as {first}' +
                         (f', there written {second}' if first != second else ''))


def partition_name(list_file: Optional[str]) -> Optional[str]:
    """How a run calls its partition: the folders of its list below ``splits``, else the list's folder and file."""
    if not list_file:
        return None
    parts = Path(list_file).with_suffix('').parts
    if 'splits' in parts:
        parts = parts[len(parts) - parts[::-1].index('splits'):]
    else:
        parts = parts[-2:]
    return '/'.join(parts[:-1] if len(parts) > 1 and parts[-1] in KINDS else parts)
