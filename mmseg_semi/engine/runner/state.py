"""What self-training remembers on disk: which stages are done."""
import hashlib
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Optional

from mmseg_semi.files import write_text

VERSION = 3  # of the settings that are compared, too
MANIFEST = 'manifest.jsonl'


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its ``manifest.jsonl``, which holds the digest of every file in it."""
    sha = hashlib.sha256()
    with open(path / MANIFEST if path.is_dir() else path, 'rb') as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def damage(path: Path, expected: str) -> str:
    """What is wrong with an output that had the given :func:`digest` when it was made; empty if nothing is.

    Every file of a folder is read and compared with its line in the manifest: about a second for 10,000 masks.
    """
    if not path.exists():
        return f'{path} is gone'
    if path.is_dir() and not (path / MANIFEST).is_file():
        return f'{path / MANIFEST} is gone'
    if digest(path) != expected:
        return f'{path} has changed'
    if path.is_dir():
        records = [json.loads(line) for line in (path / MANIFEST).read_text().splitlines()]
        with ThreadPoolExecutor() as threads:  # most of the time a network disk is waited for
            whole = list(threads.map(lambda record: _unchanged(path / record['file'], record['sha256']), records))
        bad = [record['file'] for record, good in zip(records, whole, strict=True) if not good]
        if bad:
            return f'{len(bad)} of {len(records)} files in {path} are gone or have changed, such as {bad[0]}'
    return ''


def _unchanged(path: Path, expected: str) -> bool:
    return path.is_file() and digest(path) == expected


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return zipfile.is_zipfile(checkpoint)


def usable_checkpoint(folder: Path) -> Optional[Path]:
    """The newest whole ``iter_*.pth``, or else ``epoch_*.pth``; a process that is killed while it saves leaves a
    cut-off one.
    """
    for kind in ('iter', 'epoch'):
        found = sorted(folder.glob(f'{kind}_*.pth'), key=lambda path: int(re.sub(r'\D', '', path.stem) or 0))
        whole = next(filter(is_whole, reversed(found)), None)
        if whole:
            return whole
    return None


def fingerprint(settings: dict) -> str:
    """SHA-256 of everything that determines what a stage makes."""
    text = json.dumps(dict(version=VERSION, settings=settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: dict, new: dict, prefix: str = '') -> Dict[str, tuple]:
    """Dotted keys at which two nested dicts differ, with both values."""
    found = {}
    for key in sorted({*old, *new}, key=str):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found.update(differences(one, other, f'{prefix}{key}.'))
        elif one != other:
            found[f'{prefix}{key}'] = (one, other)
    return found


class State:
    """``state.json``: for each stage its status (running, failed or done), fingerprint, settings and outputs.

    Args:
        path (Path): The file; need not exist.

    Raises:
        ValueError: If the file is of another version or no whole JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: Dict[str, dict] = {}
        if path.is_file():
            try:
                content = json.loads(path.read_text())
                version, self.stages = content['version'], content['stages']
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{path} cannot be read ({error!r}); expected JSON that says which stages are done. '
                                 'Put back a copy of it, or give another work_dir') from error
            if version != VERSION:
                raise ValueError(f'{path} has version {version}, expected {VERSION}: its plan was begun with another '
                                 'release of mmseg_semi, whose settings cannot be compared with these. Nothing was '
                                 'changed; finish it with that release, or give another work_dir')

    def get(self, name: str) -> Optional[dict]:
        """What is known of a stage, or None."""
        return self.stages.get(name)

    def set(self, name: str, **entry) -> None:
        """Replaces the entry of a stage and writes the file."""
        self.stages[name] = json.loads(json.dumps(entry, default=str))
        write_text(self.path, json.dumps(dict(version=VERSION, stages=self.stages), indent=1) + '\n')

    def forget(self, name: str) -> None:
        """Removes a stage and writes the file."""
        if self.stages.pop(name, None) is not None:
            write_text(self.path, json.dumps(dict(version=VERSION, stages=self.stages), indent=1) + '\n')
