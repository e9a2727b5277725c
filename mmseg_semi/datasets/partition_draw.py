"""Draws which images of a data set are labeled."""
import hashlib
import re
from typing import Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

CLASSES = Mapping[str, FrozenSet[int]]


def order(seed: int, name: str) -> bytes:
    """Key that sorts names at random: the same on every machine, and new images do not reorder the old ones."""
    return hashlib.sha256(f'{seed}\0{name}'.encode('utf-8', 'surrogateescape')).digest()


def group_images(ids: Sequence[str], pattern: Optional[str]) -> Dict[str, List[str]]:
    """Images by what the regular expression finds in their id (its first group, or all of the match).

    Args:
        ids (Sequence[str]): Ids of images.
        pattern (str, optional): Without it each image is a group of its own.

    Returns:
        dict[str, list[str]]: Group -> its ids, sorted.

    Raises:
        ValueError: If the expression is wrong or does not match an id.
    """
    if not pattern:
        return {name: [name] for name in sorted(ids)}
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f'--group-by {pattern!r} is no regular expression: {error}') from None
    groups: Dict[str, List[str]] = {}
    for name in sorted(ids):
        match = regex.search(name)
        if not match:
            raise ValueError(f'--group-by {pattern!r} finds nothing in image {name!r}')
        groups.setdefault(match[1] if regex.groups else match[0], []).append(name)
    return groups


def rank_groups(groups: Mapping[str, Sequence[str]], classes: CLASSES, seed: int) -> Tuple[List[str], int]:
    """All groups in the order in which they become labeled: first some that show every class, then at random.

    The cover takes the class that fewest groups show first, and of those groups the first at random. Since any number
    of labeled images is a prefix of one order, larger draws of a seed contain the smaller ones.

    Args:
        groups (Mapping): Group -> ids.
        classes (Mapping): Id -> classes in its mask; empty to draw purely at random.
        seed (int): Of the draw.

    Returns:
        tuple[list[str], int]: The groups, and how many of them the cover takes.
    """
    shown = {group: frozenset().union(*(classes.get(name, frozenset()) for name in names))
             for group, names in groups.items()}
    at_random = sorted(groups, key=lambda group: (order(seed, group), group))
    where: Dict[int, List[str]] = {}
    for group in at_random:
        for c in shown[group]:
            where.setdefault(c, []).append(group)
    cover: List[str] = []
    seen: set = set()
    for c in sorted(where, key=lambda c: (len(where[c]), c)):
        if c not in seen:
            cover.append(where[c][0])
            seen |= shown[where[c][0]]
    chosen = set(cover)
    return cover + [group for group in at_random if group not in chosen], len(cover)


def draw(groups: Mapping[str, Sequence[str]], classes: CLASSES, count: int, seed: int) -> List[str]:
    """The labeled images: whole groups in the order of :func:`rank_groups` until one does not fit into ``count``.

    Args:
        groups (Mapping): Group -> ids.
        classes (Mapping): Id -> classes in its mask.
        count (int): How many images at most, >= 1.
        seed (int): Of the draw.

    Returns:
        list[str]: Sorted ids, ``count`` of them if groups are single images.

    Raises:
        ValueError: If a group is needed for a class and does not fit, or no group fits, or there are too few images.
    """
    total = sum(map(len, groups.values()))
    if not 1 <= count <= total:
        raise ValueError(f'{count} labeled images asked for; {total} have masks, so it must be 1 to {total}')
    ranked, needed = rank_groups(groups, classes, seed)
    labeled: List[str] = []
    for i, group in enumerate(ranked):
        if len(labeled) + len(groups[group]) > count:
            if i < needed:
                rest = sum(len(groups[g]) for g in ranked[:needed])
                raise ValueError(f'{count} labeled images cannot show every class: it takes {rest} images in {needed} '
                                 'groups here; ask for more, or pass --no-stratify')
            break
        labeled += groups[group]
    if not labeled:
        raise ValueError(f'no group fits into {count} labeled images; the smallest has '
                         f'{min(map(len, groups.values()))}')
    return sorted(labeled)
