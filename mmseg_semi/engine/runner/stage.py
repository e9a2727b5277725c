"""What every stage of a self-training plan has in common, and references between stages."""
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Callable, Dict, Iterator, List

REFERENCE = re.compile(r'(\w+):(\w+)')


def references(node, stages: List[str]) -> Iterator[str]:
    """Every ``'stage:artifact'`` of the given stages below a config node."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from references(child, stages)
    elif isinstance(node, str):
        match = REFERENCE.fullmatch(node)
        if match and match[1] in stages:
            yield node


def replace_references(node, stages: List[str], replacement: Callable[[str], str]):
    """A copy of a config node in which every ``'stage:artifact'`` is replaced."""
    if isinstance(node, dict):
        return {key: replace_references(child, stages, replacement) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return [replace_references(child, stages, replacement) for child in node]
    return replacement(node) if list(references(node, stages)) else node


class Stage(ABC):
    """One step of a plan. Its result depends on nothing but its options and the files they name.

    Args:
        folder (Path): Where it may write.
        here (Path): Folder of the plan's config; relative configs are looked for there.
        launcher (str): As in ``tools/train.py``.
        env_cfg (dict): The plan's, for distributed runs.
    """

    #: Names of the outputs, for references that are checked before anything runs.
    artifacts: tuple = ()

    def __init__(self, folder: Path, here: Path, launcher: str, env_cfg: dict) -> None:
        self.folder, self.here, self.launcher, self.env_cfg = folder, here, launcher, env_cfg

    @abstractmethod
    def settings(self) -> dict:
        """Everything that determines the result, as plain data; part of the fingerprint."""

    @abstractmethod
    def run(self) -> Dict[str, Path]:
        """Does the work, or what is left of it, on all ranks; returns the outputs by name."""
