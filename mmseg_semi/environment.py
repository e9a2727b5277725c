"""Which MMSegmentation stack is installed, and whether it can work.

Two stacks provide the same import names: OneDL (``onedl-*``, maintained) and OpenMMLab (the originals). Either will do,
but not both at once, since pip lets one overwrite the other's files.
"""
import importlib.util
import shlex
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Dict, Optional

from packaging.version import Version

MIN_TORCH = '2.1'
MMCV_RANGE = ('2.0.0rc4', '2.2.0')  # of OpenMMLab's mmsegmentation 1.x: from the first, below the second

# Import name -> distributions that provide it, OneDL's first.
PROVIDERS = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain')
}
REQUIRED = ('mmengine', 'mmcv', 'mmseg')

_PIP = 'python -m pip'
_ONEDL = ('onedl-mmcv>=2.3.6,<3', 'onedl-mmengine>=0.10.12,<1', 'onedl-mmpretrain>=1.3.6,<2',
          'onedl-mmsegmentation>=1.4.2,<2', 'torchvision')
_INSTALL_ONEDL = f'{_PIP} install {shlex.join(_ONEDL)}'
_INSTALL_MMCV = (f"{_PIP} install 'setuptools<81' wheel ninja && MMCV_WITH_OPS=1 {_PIP} install --no-build-isolation "
                 '--no-deps --force-reinstall --no-binary mmcv mmcv==2.1.0')
_INSTALL_OPENMMLAB = (f'{_PIP} install mmsegmentation==1.2.2 mmengine==0.10.7 mmpretrain==1.2.0 ftfy regex torchvision '
                      f'&& {_INSTALL_MMCV}')

Installed = Dict[str, Dict[str, str]]


def installed() -> Installed:
    """Finds the distributions that provide the stack.

    Returns:
        dict: Import name -> {distribution: version}, for every key of :data:`PROVIDERS`. A package that can be
        imported but was not installed by pip (a source tree on the path) counts as ``{'source tree': 'unknown'}``.
    """
    found: Installed = {}
    for name, distributions in PROVIDERS.items():
        found[name] = {}
        for distribution in distributions:
            try:
                found[name][distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                pass
        spec = importlib.util.find_spec(name)
        if not found[name] and spec is not None and spec.origin is not None:  # no origin: a mere folder of that name
            found[name] = {'source tree': 'unknown'}
    return found


def mmcv_has_ops() -> bool:
    """Whether the installed mmcv brings its compiled ops; looks for the file, imports nothing."""
    spec = importlib.util.find_spec('mmcv')
    locations = spec.submodule_search_locations if spec else None
    return any(any(Path(location).glob('_ext.*')) for location in locations or ())


def diagnose(found: Installed, torch_version: Optional[str], has_ops: bool) -> Optional[str]:
    """Names the first thing that cannot work, and the command that mends it.

    Args:
        found (dict): Import name -> {distribution: version}, see :func:`installed`.
        torch_version (str, optional): Version of torch; None where it is missing.
        has_ops (bool): Whether mmcv brings compiled ops.

    Returns:
        str, optional: What was found, then the command, each on its line; None if all is well.
    """
    if torch_version is None or Version(torch_version) < Version(MIN_TORCH):
        state = 'is not installed' if torch_version is None else f'{torch_version} is too old'
        return _message(f'torch {state} (needed: torch>={MIN_TORCH})', f"{_PIP} install -U 'torch>={MIN_TORCH}'")

    everything = {name: version for providers in found.values() for name, version in providers.items()}
    doubled = [name for name, providers in found.items() if len(providers) > 1]
    if doubled:
        remove = f'{_PIP} uninstall -y {" ".join(d for d in everything if d != "source tree")}'
        return _message(
            f'{_and(doubled)} {"is" if len(doubled) == 1 else "are"} provided twice, by {_listing(everything)}; they '
            'have overwritten each other\'s files', f'{remove} && {_INSTALL_ONEDL}',
            f"For OpenMMLab's stack instead, uninstall likewise, then run: {_INSTALL_OPENMMLAB}")

    missing = [name for name in REQUIRED if not found[name]]
    if missing:
        originals = any(d in everything for name in REQUIRED for d in PROVIDERS[name][1:])
        state = f'found {_listing(everything)}' if everything else 'no MMSegmentation stack is installed'
        return _message(f'{_and(missing)} cannot be imported: {state}',
                        _INSTALL_OPENMMLAB if originals else _INSTALL_ONEDL)

    if 'mmsegmentation' in found['mmseg']:
        (mmcv, version), = found['mmcv'].items()
        low, high = MMCV_RANGE
        need = None
        if mmcv != 'source tree' and not Version(low) <= Version(version) < Version(high):
            need = f'mmcv>={low},<{high}'
        elif not has_ops:
            need = 'mmcv with its compiled ops (mmcv._ext)'
        if need:
            remove = '' if mmcv == 'source tree' else f'{_PIP} uninstall -y {mmcv} && '
            return _message(f'mmsegmentation needs {need}: found {_listing({**found["mmseg"], **found["mmcv"]})}',
                            f'{remove}{_INSTALL_MMCV}', 'mmcv compiles with torch 2.8 or older.')
    return None


def check() -> None:
    """Raises if the installed packages cannot work together.

    Raises:
        ImportError: Saying what was found and the command that mends it.
    """
    problem = diagnose(installed(), _torch_version(), mmcv_has_ops())
    if problem:
        raise ImportError(problem)


def allow_own_checkpoints() -> None:
    """Lets ``torch.load`` read mmengine's checkpoints in its safe mode, the default since torch 2.6.

    OpenMMLab's mmengine leaves this undone and so cannot resume from what it saved; OneDL's allows less than it saves
    (not numpy's float32) and then falls back to unsafe loading. Only what checkpoints hold beside tensors is allowed:
    the log history and numpy's arrays and numbers.
    """
    if Version(_torch_version()) < Version('2.6'):
        return
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    def history_method(owner: Any, name: str) -> Any:
        # A log history names its own methods, and pickle writes that as getattr(HistoryBuffer, 'mean').
        if owner is not HistoryBuffer or name.startswith('_'):
            raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')
        return getattr(owner, name)

    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    allowed += {type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)}
    # numpy 2 renamed the module that pickle names; a checkpoint may come from either side.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)


def _torch_version() -> Optional[str]:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch.__version__


def _message(what: str, command: str, more: str = '') -> str:
    return '\n'.join(filter(None, [f'mmseg_semi cannot start: {what}.', f'To mend it, run: {command}', more]))


def _listing(distributions: Dict[str, str]) -> str:
    return ', '.join(f'{name} {version}' for name, version in distributions.items())


def _and(names: list) -> str:
    return ' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))
