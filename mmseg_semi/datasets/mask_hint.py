"""What kind of mask a file seems to be when its values are no class indices, and the command that mends it."""
import os.path as osp
import shlex
from typing import Container, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image

from .image_lists import strip_suffix, walk

_FOREIGN = ('.gif', '.webp', '.jpg', '.jpeg')  # what convert_masks.py reads and no mask of class indices is saved as
_MANY = 64  # distinct values from which a gray picture is no coded mask


class Place(NamedTuple):
    """Where all masks of a set lie; beside images they are told from these by the ending ``suffix``."""
    folder: str
    suffix: str = ''


def mask_place(mask: str, image: str = '', folder: str = '') -> Place:
    """The place of a mask.

    ``images/day/a.jpg`` and ``masks/day/a.png`` lie in mirrored trees, of which ``masks`` is one.

    Args:
        mask (str): Its path.
        image (str): Its image's; without it the mask's own folder is all that is known.
        folder (str): Of all masks, if it is known.
    """
    inner, other = osp.dirname(mask), osp.dirname(image)
    if image and osp.normpath(inner) == osp.normpath(other):
        name, stem = osp.basename(mask), osp.splitext(osp.basename(image))[0]
        return Place(folder or inner, name[len(stem):] if name.startswith(stem) else osp.splitext(name)[1])
    while image and osp.basename(inner) and osp.basename(inner) == osp.basename(other):
        inner, other = osp.dirname(inner), osp.dirname(other)
    return Place(folder or inner)


def convert_command(place: Place, option: str = '') -> str:
    """The command that converts all masks of a place."""
    folder = place.folder or '.'
    words = [folder, f'{folder.rstrip("/")}_indices', *(['--suffix', place.suffix] if place.suffix else [])]
    return f'python tools/dataset_converters/convert_masks.py {shlex.join(words)} {option}'.rstrip()


def partner_hint(folder: str, stems: Container[str], mask_suffixes: Sequence[str]) -> str:
    """Where images have no mask: whether files of their names lie there in a format that is not read as a mask.

    Args:
        folder (str): Of the masks; it is searched once.
        stems (Container[str]): Stems of the images without mask.
        mask_suffixes (Sequence[str]): Endings of a mask, in lower case; ``'_mask.png'`` also looks for ``'_mask.gif'``.

    Returns:
        str: A sentence with the command that converts them, '' if there is none.
    """
    endings = sorted({suffix.rpartition('.')[0] + foreign for suffix in mask_suffixes for foreign in _FOREIGN})
    names = [name for name in walk(folder, endings) if strip_suffix(name, endings) in stems]
    if not names:
        return ''
    kind = osp.splitext(names[0])[1].lower()
    command = _by_map(Place(folder)) if kind in ('.gif', '.webp') else (
        f'if they are 0/255, `{convert_command(Place(folder), "--binary --threshold 128")}` makes 0 and 1 of them; the '
        'other kinds have to be saved again as PNG, since a JPEG invents values at every edge')
    return (f'Of the missing masks {len(names)} lie in {folder} in another format, such as {names[0]}, which is not '
            f'read as a mask: {command}')


def _by_map(place: Place) -> str:
    return (f'`{convert_command(place, "--map classes.txt")}` makes class indices of such masks (with --list instead '
            'of --map it prints a map to start from)')


def mask_hint(path: str, num_classes: int, ignore_index: int = 255, place: Optional[Place] = None) -> str:
    """Guesses why a mask does not hold the class indices 0..C-1; opens the file.

    Args:
        path (str): The mask.
        num_classes (int): ``C``.
        ignore_index (int): The label that stands beside the classes. Defaults to 255.
        place (Place, optional): Of all masks. Defaults to the folder of this one.

    Returns:
        str: One or two sentences with a command, '' if the file cannot be read or fits.
    """
    try:
        with Image.open(path) as image:
            kind, mode = image.format, image.mode
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError):  # Pillow's answers to broken files
        return ''
    place = place or mask_place(path)
    if kind == 'JPEG':
        return ('It is a JPEG, whose compression invents labels at every edge: save the masks as PNG; then, if they '
                f'are still no class indices, {_by_map(place)}')
    if mode in ('LA', 'PA'):
        return f'It has an alpha channel: {_by_map(place)}'
    if pixels.ndim == 3:
        return _color_hint(place, pixels)
    values = np.unique(pixels).tolist()
    if all(v in range(num_classes) or v == ignore_index for v in values):
        return ''
    return _gray_hint(place, [v for v in values if v != ignore_index], values, mode, num_classes)


def _color_hint(place: Place, pixels: np.ndarray) -> str:
    colors = np.unique(pixels[..., :3].reshape(-1, 3), axis=0)
    if (colors == colors[:, :1]).all():
        return f'It seems to be a gray mask stored with three channels: {_by_map(place)}'
    if len(colors) > _MANY:
        return f'It holds {len(colors)} colors, as a photograph does: is seg_map_path the folder of masks?'
    shown = ', '.join(str(tuple(color)) for color in colors[:4].tolist())
    return f'It seems to be RGB-coded, {len(colors)} colors such as {shown}: {_by_map(place)}'


def _gray_hint(place: Place, labels: Sequence[int], values: Sequence[int], mode: str, num_classes: int) -> str:
    found = f'values {", ".join(map(str, values[:6]))}{", ..." if len(values) > 6 else ""}'
    if any(v % 1 for v in values) and (len(values) != 2 or values[0] != 0):
        return (f'It holds fractions ({found}), of which mmseg reads the whole part: save the masks as PNG whose pixel '
                'is the index of the class')
    if mode not in ('1', 'L', 'P') and max(values) > 255:
        if list(values) == [0, 65535]:
            return (f'It seems to be a binary mask of 16 bits (0 and {values[1]}): '
                    f'`{convert_command(place, "--binary")}` makes 0 and 1 of it')
        return f'It has more than 8 bits ({found}), of which mmseg reads the lower 8: {_by_map(place)}'
    if mode == 'P':
        return f'It is a palette picture whose indices ({found}) are not yours: {_by_map(place)}'
    if len(values) == 2 and values[0] == 0:
        return (f'It seems to be a binary mask (0 and {values[1]}): `{convert_command(place, "--binary")}` makes 0 and '
                '1 of it')
    if max(labels) == num_classes:
        return (f'It seems to count its {num_classes} classes from 1: {_by_map(place)}; or, if 0 means unlabeled, set '
                'reduce_zero_label=True in the dataset')
    if len(values) > _MANY:
        return f'It holds {len(values)} gray levels, as a photograph does: is seg_map_path the folder of masks?'
    if len(labels) <= num_classes:
        return f'It seems to show classes as gray levels ({found}): {_by_map(place)}'
    return f'Are all classes named in `classes`? If its {found} are not class indices, {_by_map(place)}'


def cut_values(path: str) -> str:
    """Which values of a mask ``LoadAnnotations`` would cut off, as it reads whole numbers of 8 bits.

    Pixels of 8-bit files, which nearly all are, are not read.

    Returns:
        str: Such as ``'holds values outside 0 to 255'``; '' if there is none, or the file cannot be read here.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] not in 'IF':
                return ''
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError):  # not a local file, or not for Pillow
        return ''
    if (pixels % 1 != 0).any():
        return 'holds values that are no whole numbers'
    return 'holds values outside 0 to 255' if ((pixels < 0) | (pixels > 255)).any() else ''


def check_any_class(paths: Sequence[str], ignore_index: int, place: Place, reduce_zero_label: bool = False) -> None:
    """Refuses 0/255 masks, which no check of values finds: 255 reads as ignore, and training sees one class only.

    With ``reduce_zero_label`` it would see none.

    Stops at the first mask with another label, commonly the first of all; masks that cannot be read or have colors are
    left to the checks of the pipeline.

    Args:
        paths (Sequence[str]): All masks of a set.
        ignore_index (int): Its ignored label.
        place (Place): Of the masks, for the message.
        reduce_zero_label (bool): Whether 0 is ignored, too. Defaults to False.

    Raises:
        ValueError: If the masks hold 0 and ``ignore_index`` and nothing else.
    """
    seen = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError):
            return
        seen.update(np.unique(pixels).tolist())
        if pixels.ndim != 2 or seen - {0, ignore_index}:
            return
    if seen == {0, ignore_index}:
        zero = ' at all: with reduce_zero_label=True 0 is ignored' if reduce_zero_label else ' but 0'
        then = '; leave reduce_zero_label out then' if reduce_zero_label else ''
        raise ValueError(f'none of the {len(paths)} masks below {place.folder} shows a class{zero}; all other pixels '
                         f'are {ignore_index}, which is ignored. They seem to be binary masks: '
                         f'`{convert_command(place, "--binary")}` makes 0 and 1 of them{then}')


def wrong_mask(path: str, found: str, num_classes: int, ignore_index: int = 255, place: Optional[Place] = None) -> str:
    """Message about a mask: what was ``found``, such as ``'holds labels [7]'``, what is expected, and the hint."""
    hint = mask_hint(path, num_classes, ignore_index, place)
    expected = f'expected 0..{num_classes - 1} or {ignore_index} (ignore)'
    return f'mask {path} {found}; {expected}{". " + hint if hint else ""}'
