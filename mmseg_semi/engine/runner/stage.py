"""What every stage of a self-training plan has in common, and references to other stages and to the plan's config."""
import copy
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Callable, Dict, Iterator, List

REFERENCE = re.compile(r'(\w+):(\w+)')
CONFIG = re.compile(r'config:([\w.]+)')
FROM = '_from_'


class PlanError(ValueError):
    """Something about a plan or its folder that its user has to change; the message says what."""


def config_keys(node) -> Iterator[str]:
    """Every dotted key that a ``'config:key'`` below a config node names."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from config_keys(child)
    elif isinstance(node, str) and CONFIG.fullmatch(node):
        yield CONFIG.fullmatch(node)[1]


def replace_config(node, cfg: dict):
    """A copy of a config node with parts of the plan's config in it.

    ``'config:key'`` stands for that part, keys below others dotted. ``dict(_from_='config:key', a=1)`` is a copy of
    that part in which ``a`` is 1.

    Raises:
        ValueError: If there is no such key, or ``_from_`` does not name a dict.
    """
    if isinstance(node, dict):
        node = {key: replace_config(child, cfg) for key, child in node.items()}
        if FROM not in node:
            return node
        source = node.pop(FROM)
        if not isinstance(source, dict):
            raise ValueError(f"{FROM} must be 'config:KEY' of a dict in the plan's config, found {source!r}")
        return {**source, **node}
    if isinstance(node, (list, tuple)):
        return type(node)(replace_config(child, cfg) for child in node)  # mmcv tells tuples from lists
    match = CONFIG.fullmatch(node) if isinstance(node, str) else None
    if not match:
        return node
    found = cfg
    for key in match[1].split('.'):
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{node!r}: the plan's config has no {match[1]!r}")
        found = found[key]
    return copy.deepcopy(found)


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
        return type(node)(replace_references(child, stages, replacement) for child in node)
    return replacement(node) if list(references(node, stages)) else node


class Stage(ABC):
    """One step of a plan. Its result depends on nothing but its options and the files they name.

    Args:
        folder (Path): Where it may write.
        here (Path): Folder of the plan's config; relative configs are looked for there.
        launcher (str): As in ``tools/train.py``.
        env_cfg (dict): The plan's, for distributed runs.
        plan_cfg (dict): The plan's config as that of a training run: without the plan.
    """

    #: Names of the outputs, for references that are checked before anything runs. May be set by the constructor.
    artifacts: tuple = ()

    #: Outputs that a run in the stage's own folder makes good when they are gone or changed. Where another one is, the
    #: folder has to be emptied first, which only ``on_stale='rerun'`` allows.
    mends: tuple = ()

    def __init__(self, folder: Path, here: Path, launcher: str, env_cfg: dict, plan_cfg: dict) -> None:
        self.folder, self.here, self.launcher, self.env_cfg = folder, here, launcher, env_cfg
        self.plan_cfg = plan_cfg

    @abstractmethod
    def settings(self) -> dict:
        """Everything that determines the result, as plain data; part of the fingerprint.

        The driver adds the images of each image set, and what the files of earlier stages hold. Also called before
        anything runs, with references as they stand in the plan.
        """

    @abstractmethod
    def run(self) -> Dict[str, Path]:
        """Does the work, or what is left of it, on all ranks; returns the outputs by name."""
