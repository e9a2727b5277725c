"""Which images and videos are meant, and under which name each one's results lie."""
import glob
import os
from collections import Counter
from pathlib import Path
from typing import List, NamedTuple, Sequence

from mmseg_semi.datasets.image_lists import IMG_SUFFIXES, walk

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class Unreadable(ValueError):
    """A file that is no picture or video after all; the others can go on."""


class Source(NamedTuple):
    """One image or video.

    Attributes:
        path (Path): The file.
        name (str): Its path below the folder that all inputs share, '/' between folders: unique.
        key (str): Path of its results below ``masks``, ``overlays`` and ``confidence``, without suffix: unique.
    """
    path: Path
    name: str
    key: str

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class Found(NamedTuple):
    """What the command line names.

    Attributes:
        sources (list[Source]): In the order of the command line, a folder's files sorted; each file once.
        skipped_videos (int): Videos in its folders, of which only images are taken, that nothing else names.
    """
    sources: List[Source]
    skipped_videos: int


class Kinds(NamedTuple):
    """Suffixes, in lower case and with their dots, of the files that can be predicted."""
    images: Sequence[str] = IMG_SUFFIXES
    videos: Sequence[str] = VIDEO_SUFFIXES

    def know(self, path: str) -> bool:
        """Whether a file is one of them, by its name."""
        return path.lower().endswith((*self.images, *self.videos))


PHOTOGRAPHS = Kinds()


def find_sources(patterns: Sequence[str], leave_out: Sequence[Path] = (), kinds: Kinds = PHOTOGRAPHS) -> Found:
    """Lists what the command line names.

    Args:
        patterns (Sequence[str]): Folders (searched at every depth for images), files, globs.
        leave_out (Sequence[Path]): Folders in which nothing is looked for, such as earlier results.
        kinds (Kinds): What counts as an image or a video.

    Raises:
        FileNotFoundError: If a pattern matches nothing.
        ValueError: If a file is neither an image nor a video, or a folder holds no image.
    """
    files, roots, videos = {}, [], set()
    skipped = [os.path.abspath(folder) for folder in leave_out]
    for pattern in patterns:
        for path in _expand(pattern, skipped, kinds):
            folder = os.path.isdir(path)
            found = _scan(path, skipped, kinds) if folder else [path]
            if folder:
                videos.update(map(os.path.abspath, _walk(path, skipped, kinds.videos)))
            roots.append(os.path.abspath(path if folder else os.path.dirname(path) or '.'))
            files.update((os.path.abspath(name), None) for name in found)
    root = Path(os.path.commonpath(roots))
    return Found(_named([Path(name) for name in files], root), len(videos.difference(files)))


def _expand(pattern: str, skipped: Sequence[str], kinds: Kinds) -> List[str]:
    """The files or folders that a part of the command line means; a glob means the files it can use."""
    if os.path.exists(pattern):
        if not (os.path.isdir(pattern) or kinds.know(pattern)):
            raise ValueError(f'{pattern} is neither an image ({" ".join(kinds.images)}) nor a video '
                             f'({" ".join(kinds.videos) or "none with LoadBands, which knows no frames"})')
        return [pattern]
    found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    known = [path for path in found if kinds.know(path) and not os.path.isdir(path)
             and not any(os.path.abspath(path).startswith(folder + os.sep) for folder in skipped)]
    known = known or [path for path in found if os.path.isdir(path)]
    if not known:
        kind = 'matches no image, video or folder' if glob.has_magic(pattern) else 'does not exist'
        raise FileNotFoundError(f'{pattern} {kind}; expected an image, a video, a folder of images or a quoted glob '
                                "such as 'photos/**/*.jpg'")
    return known


def _scan(folder: str, skipped: Sequence[str], kinds: Kinds) -> List[str]:
    found = _walk(folder, skipped, kinds.images)
    if not found:
        raise ValueError(f'{folder} holds no image ({" ".join(kinds.images)})' + (
            f"; videos of a folder are named by a glob: '{os.path.join(folder, '*.mp4')}'" if kinds.videos else ''))
    return found


def _walk(folder: str, skipped: Sequence[str], suffixes: Sequence[str]) -> List[str]:
    return [os.path.join(folder, name) for name in walk(folder, suffixes, skipped)]


def _named(paths: List[Path], root: Path) -> List[Source]:
    """Images lose their suffix unless two would then share a name; a video is a folder of frames, so it keeps it."""
    names = [path.relative_to(root) for path in paths]
    is_video = [path.suffix.lower() in VIDEO_SUFFIXES for path in paths]
    counts = Counter(name.with_suffix('') for name, video in zip(names, is_video, strict=True) if not video)
    keys = [name if video or counts[name.with_suffix('')] > 1 else name.with_suffix('')
            for name, video in zip(names, is_video, strict=True)]
    if len(set(keys)) < len(keys):  # such as a.jpg, a.png and a.png.bmp
        keys = names
    return [Source(path, name.as_posix(), key.as_posix()) for path, name, key in zip(paths, names, keys, strict=True)]
