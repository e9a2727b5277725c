"""Parts of mmseg_semi that travel with a plain export: classes whose file needs nothing else of mmseg_semi."""
import ast
import hashlib
import inspect
import re
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mmseg.registry
from mmengine.registry import Registry

from mmseg_semi import registry

#: What the names of the files begin with.
PREFIX = 'exported_'
HOME = 'mmseg_semi.registry'
#: Makes the folder of a config importable, wherever it lies; mmengine fills in the name.
SEARCH = 'import sys\nsys.path.append(r"""{{ fileDirname }}""")\n'


def ours() -> Dict[str, type]:
    """What mmseg_semi has registered, by name."""
    return {name: part for value in vars(registry).values() if isinstance(value, Registry)
            for name, part in value.module_dict.items() if from_us(part)}


def from_us(part: Any) -> bool:
    """Whether a class or function is one of mmseg_semi."""
    return getattr(part, '__module__', '').split('.')[0] == 'mmseg_semi'


def typed(node: Any, where: str = '') -> Iterator[Tuple[str, dict, str]]:
    """Every dict with a ``type`` below a node of a config: its place, itself, its name in mmseg."""
    if isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from typed(value, f'{where}[{i}]')
    elif isinstance(node, dict):
        if 'type' in node:
            yield where, node, name_of(node['type'])
        for key, value in node.items():
            yield from typed(value, f'{where}.{key}' if where else key)


def name_of(kind: Any) -> str:
    """The name of a config's ``type``, which may be a class or have a scope, in mmseg."""
    scope, _, name = getattr(kind, '__name__', str(kind)).rpartition('.')
    return name if scope.split('.')[0] in ('', 'mmseg', 'mmseg_semi') else f'{scope}.{name}'


def imports_of(cfg: dict) -> List[str]:
    """The modules that a config imports."""
    names = cfg.get('custom_imports', {}).get('imports', [])
    return [names] if isinstance(names, str) else list(names)


def take_along(cfg: dict) -> Dict[str, str]:
    """Lets a config name copies of our parts where mmseg has none and their file can stand alone.

    A digest of the text is part of each name: beside a copy may be the original in an installed mmseg_semi, or a copy
    that another version exported.

    Args:
        cfg (dict): Changed in place: the names, and ``custom_imports``.

    Returns:
        dict[str, str]: Text by file name, to write beside the config; empty if the config names no such part.
    """
    files, parts = {}, ours()
    for _, node, name in typed(cfg):
        text = name in parts and standalone(sys.modules[parts[name].__module__])
        if text:
            digest = hashlib.sha256(text.encode()).hexdigest()[:8]
            module = f'{PREFIX}{parts[name].__module__.rpartition(".")[2]}_{digest}'
            files[f'{module}.py'] = re.sub(r'@(\w+)\.register_module\(\)(?=\nclass (\w+))',
                                           rf"@\1.register_module(name='\2_{digest}', force=True)", text)
            node['type'] = f'{name}_{digest}'
    if files:
        cfg['custom_imports'] = dict(cfg.get('custom_imports', dict(allow_failed_imports=False)),
                                     imports=[*imports_of(cfg), *(name[:-3] for name in files)])
    return files


def standalone(module: Any) -> Optional[str]:
    """The text of a module as one for mmseg alone, or None if it needs more of mmseg_semi than registries of mmseg."""
    text = inspect.getsource(module)
    for node in ast.walk(ast.parse(text)):
        names = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            relative = isinstance(node, ast.ImportFrom) and node.level > 0
            if relative or (name.split('.')[0] == 'mmseg_semi' and not _is_registry_of_mmseg(name, node)):
                return None
    return text.replace(f'from {HOME} import', 'from mmseg.registry import')


def _is_registry_of_mmseg(name: str, node: ast.AST) -> bool:
    return name == HOME and isinstance(node, ast.ImportFrom) and all(
        hasattr(mmseg.registry, alias.name) for alias in node.names)
