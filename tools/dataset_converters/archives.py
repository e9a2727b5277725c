"""Where the data come from: official archives, unpacked safely and resumably, or the folder they were unpacked into."""
import contextlib
import gzip
import shutil
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator, Optional, Sequence, Tuple

from conversion import locked, whole
from mmengine.utils import ProgressBar

MEGABYTE = 1 << 20
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error)


def gather(sources: Sequence[Path], out: Optional[Path], default: Path, wanted: Callable[[str], Optional[str]],
           roots: Sequence[str], markers: Sequence[str]) -> Tuple[Path, Path]:
    """Turns archives, or the folder that they were unpacked into, into a folder to read from.

    Args:
        sources (Sequence[Path]): Archives, which are unpacked into ``out``, or one folder.
        out (Path, optional): Folder to write to. Defaults to ``default`` for archives, else to the folder.
        default (Path): See ``out``.
        wanted (Callable): Maps the name of a file in an archive to its path below ``out``; None leaves it out.
        roots (Sequence[str]): Where the data may lie below the folder that was given.
        markers (Sequence[str]): Files or folders, any of which tells a data root.

    Returns:
        tuple: Folder to read from and folder to write to.

    Raises:
        FileNotFoundError: If a source or all markers are missing.
        ValueError: If archives and folders are mixed, or an archive cannot be unpacked.
    """
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f'no such file or folder: {source}')
    folders = [source for source in sources if source.is_dir()]
    if folders and len(sources) > 1:
        raise ValueError(f'expected archives or one folder, found {len(sources)} paths, a folder among them: '
                         f'{folders[0]}')
    if not folders:
        out = out or default
        for source in sources:
            unpack(source, out, wanted)
        return find_root(out, [''], markers, sources), out
    root = find_root(folders[0], ['', *roots], markers, sources)
    return root, out or root


def find_root(folder: Path, roots: Sequence[str], markers: Sequence[str], sources: Sequence[Path]) -> Path:
    """The first of ``roots`` below ``folder`` that holds one of ``markers``."""
    for root in roots:
        if any((folder / root / marker).exists() for marker in markers):
            return folder / root
    raise FileNotFoundError(f'no {" or ".join(markers)} in {", ".join(map(str, sources))}: expected the official '
                            'archives or the folder that they were unpacked into (docs/datasets.md)')


def unpack(archive: Path, out: Path, wanted: Callable[[str], Optional[str]]) -> int:
    """Writes the files that are wanted and not there yet; returns how many were written.

    Raises:
        ValueError: If it is no archive, is damaged, or a name in it leads out of the folder.
    """
    print(f'unpacking {archive} to {out}')
    written = 0
    try:
        with locked(out), contextlib.ExitStack() as stack:
            members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
            for name, size, opened in members(archive, stack):
                target = _target(archive, out, name, wanted)
                if target is None or target.is_file() and target.stat().st_size == size:
                    continue
                with opened() as source, whole(target) as part, part.open('wb') as file:
                    shutil.copyfileobj(source, file, MEGABYTE)
                written += 1
    except DAMAGED as error:
        raise ValueError(f'{archive} cannot be unpacked ({type(error).__name__}: {error}); expected a complete tar or '
                         'zip archive: download it again') from error
    return written


def _target(archive: Path, out: Path, name: str, wanted: Callable[[str], Optional[str]]) -> Optional[Path]:
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\\' in name:
        raise ValueError(f'{archive} holds {name!r}, which leads out of the folder: not an official archive')
    place = wanted(str(path))
    return None if place is None else out / place


def _zip_members(archive: Path, stack: contextlib.ExitStack) -> Iterator[tuple]:
    """Name, size and a function that opens, for each file; shows the progress in megabytes."""
    content = stack.enter_context(zipfile.ZipFile(archive))
    infos = [info for info in content.infolist() if not info.is_dir()]
    stack.callback(sys.stderr.write, '\n')
    bar = MegabyteBar(sum(info.compress_size for info in infos))
    for info in infos:
        yield info.filename, info.file_size, lambda info=info: content.open(info)
        bar.advance(info.compress_size)
    bar.finish()


def _tar_members(archive: Path, stack: contextlib.ExitStack) -> Iterator[tuple]:
    raw = stack.enter_context(archive.open('rb'))
    content = stack.enter_context(tarfile.open(fileobj=raw, mode='r|*'))
    stack.callback(sys.stderr.write, '\n')
    bar, before = MegabyteBar(archive.stat().st_size), 0
    for member in content:
        if member.isfile():  # links and devices are never followed
            yield member.name, member.size, lambda member=member: content.extractfile(member)
        bar.advance(raw.tell() - before)
        before = raw.tell()
    bar.finish()


class MegabyteBar:
    """mmengine's progress bar, one task per megabyte."""

    def __init__(self, size: int) -> None:
        self.total = max(1, size // MEGABYTE)
        self.bar, self.bytes, self.done = ProgressBar(self.total, file=sys.stderr), 0, 0

    def advance(self, size: int) -> None:
        self.bytes += size
        self._show(min(self.bytes // MEGABYTE, self.total))

    def finish(self) -> None:
        self._show(self.total)

    def _show(self, done: int) -> None:
        if done > self.done:
            self.bar.update(done - self.done)
            self.done = done
