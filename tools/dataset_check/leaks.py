"""Images that are in two sources, by path and by content."""
import hashlib
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from dataset_check.common import shown
from dataset_check.scan import CHUNK, spread
from dataset_check.tally import EXAMPLES, Tally


@dataclass
class Overlap:
    """Images that two sources share, or that one source holds twice.

    Attributes:
        first, second (Tally): Equal for doubles inside one source.
        by (str): 'path' or 'content'.
        count (int): Images of ``first`` with a twin.
        examples (list): ``(text, place in the first source)``.
    """
    first: Tally
    second: Tally
    by: str
    count: int
    examples: List[Tuple[str, int]]


def digests(paths: Sequence[str]) -> List[Tuple[str, str]]:
    """Paths with the SHA-256 of their bytes; files that vanished are left out."""
    found = []
    for path in paths:
        try:
            with open(path, 'rb') as file:
                found.append((path, hashlib.file_digest(file, 'sha256').hexdigest()
                              if hasattr(hashlib, 'file_digest') else hashlib.sha256(file.read()).hexdigest()))
        except OSError:
            continue
    return found


def content_keys(tallies: Sequence[Tally], pool: ProcessPoolExecutor, progress: Callable[[int, int], None]
                 ) -> Dict[str, str]:
    """Digest by real path, of the files that share their length with another one; the rest need not be read."""
    by_size = defaultdict(set)
    for tally in tallies:
        for _, _, real, num_bytes in tally.files:
            if num_bytes > 0:
                by_size[num_bytes].add(real)
    paths = sorted(path for group in by_size.values() if len(group) > 1 for path in group)
    keys: Dict[str, str] = {}
    for found in spread(pool, digests, (paths[i:i + CHUNK] for i in range(0, len(paths), CHUNK))):
        keys.update(found)
        progress(len(found), len(paths))
    return keys


def overlaps(tallies: Sequence[Tally], keys: Dict[str, str]) -> Iterator[Overlap]:
    """Every pair of sources that share an image, and every source that holds one twice.

    Args:
        tallies (Sequence[Tally]): Of all sources.
        keys (dict): From :func:`content_keys`; empty to compare paths only.
    """
    yield from _by(tallies, 'path', lambda real: real)
    if keys:
        yield from _by(tallies, 'content', keys.get)


def _by(tallies: Sequence[Tally], by: str, key: Callable[[str], str]) -> Iterator[Overlap]:
    groups = defaultdict(list)
    for number, tally in enumerate(tallies):
        for place, path, real, _ in tally.files:
            name = key(real)
            if name is not None:
                groups[name].append((number, place, path, real))
    found: Dict[Tuple[int, int], Dict[int, str]] = defaultdict(dict)
    for group in groups.values():
        members = defaultdict(list)
        for one in group if len(group) > 1 else ():
            members[one[0]].append(one)
        for first, second in combinations_with_replacement(sorted(members), 2):
            for i, one in enumerate(members[first]):
                later = range(i + 1 if first == second else 0, len(members[second]))
                # The first twin is enough: of many equal files the pairs would be too many.
                two = next((members[second][k] for k in later if by == 'path' or members[second][k][3] != one[3]), None)
                if two is not None:  # by content, the same file was told already
                    found[first, second][one[1]] = shown(one[2]) if one[2] == two[2] else \
                        f'{shown(one[2])} = {shown(two[2])}'
    for (first, second), places in sorted(found.items()):
        examples = [(text, place) for place, text in sorted(places.items())[:EXAMPLES]]
        yield Overlap(tallies[first], tallies[second], by, len(places), examples)
