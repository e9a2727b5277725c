"""Parts of mmseg_semi that travel with a plain export: classes whose file needs nothing else of mmseg_semi."""
import ast
import inspect
import re
import sys
from typing import Any, Dict, Iterator, Optional, Tuple

from mmengine.registry import Registry

from mmseg_semi import registry

#: Before the name of a module or a registered class: beside an installed mmseg_semi there are two of each.
PREFIX = 'Exported'
HOME = 'mmseg_semi.registry'
#: Makes the folder of a config importable, wherever it lies; mmengine fills in the name.
SEARCH = "import sys\nsys.path.insert(0, '{{ fileDirname }}')\n"


def ours() -> Dict[str, type]:
    """What mmseg_semi has registered, by name."""
    return {name: part for value in vars(registry).values() if isinstance(value, Registry)
            for name, part in value.module_dict.items() if from_us(part)}


def from_us(part: Any) -> bool:
    """Whether a class or function is one of mmseg_semi."""
    return getattr(part, '__module__', '').split('.')[0] == 'mmseg_semi'


def typed(node: Any, where: str = '') -> Iterator[Tuple[str, dict]]:
    """Every dict with a ``type`` below a node of a config, with its place."""
    if isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from typed(value, f'{where}[{i}]')
    elif isinstance(node, dict):
        if 'type' in node:
            yield where, node
        for key, value in node.items():
            yield from typed(value, f'{where}.{key}' if where else key)


def take_along(cfg: dict) -> Dict[str, str]:
    """Lets a config name copies of our parts where mmseg has none and their file can stand alone.

    Args:
        cfg (dict): Changed in place: the names, and ``custom_imports``.

    Returns:
        dict[str, str]: Text by file name, to write beside the config; empty if the config names no such part.
    """
    files, parts = {}, ours()
    for _, node in typed(cfg):
        part = parts.get(node['type']) if isinstance(node['type'], str) else None
        text = part and standalone(sys.modules[part.__module__])
        if text:
            files[f'{_module(part)}.py'] = text
            node['type'] = PREFIX + node['type']
    if files:
        imports = cfg.get('custom_imports', {})
        known = [imports['imports']] if isinstance(imports.get('imports'), str) else imports.get('imports', [])
        cfg['custom_imports'] = dict(imports=[*known, *(name[:-3] for name in files)], allow_failed_imports=False)
    return files


def _module(part: type) -> str:
    return f'{PREFIX.lower()}_{part.__module__.rpartition(".")[2]}'


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
    text = re.sub(r'@(\w+)\.register_module\(\)(?=\nclass (\w+))',
                  rf"@\1.register_module(name='{PREFIX}\2', force=True)", text)
    return text.replace(f'from {HOME} import', 'from mmseg.registry import')


def _is_registry_of_mmseg(name: str, node: ast.AST) -> bool:
    import mmseg.registry
    return name == HOME and isinstance(node, ast.ImportFrom) and all(
        hasattr(mmseg.registry, alias.name) for alias in node.names)
