"""Writes what mim reads: model-index.yml and a metafile.yml in each folder of configs, from the configs themselves.

    python tools/misc/model_index.py            # after adding, renaming or removing a config or a benchmark row
    python tools/misc/model_index.py --check    # exit status 1 if a file is not what this would write

A collection is a folder of ``configs``. Its paper is the link in the first lines of ``configs/_base_/semi/FOLDER.py``,
where that file exists. Results are those rows of ``docs/benchmarks/camvid.json`` that ran a config as it is.
"""
import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Dict, List, Optional

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import yaml
from mmengine.config import Config
from mmengine.utils import track_iter_progress

ROOT = Path(__file__).resolve().parents[2]
HEADER = '# Made by `python tools/misc/model_index.py`; edit the configs instead.\n'
MINE = 'mine'  # the user's copy of configs/own_data (docs/own_data.md), which git ignores
AS_IT_IS = 'laptop'  # the profile of tools/bench_camvid.py that changes nothing in a config but the seed


def find_configs(root: Path) -> Dict[str, List[Path]]:
    """Collection -> its configs, at any depth, both sorted.

    Raises:
        FileNotFoundError: If there is no config.
        ValueError: If two configs have one name, by which mim would not tell them apart.
    """
    found: Dict[str, List[Path]] = {}
    seen: Dict[str, Path] = {}
    for path in sorted((root / 'configs').glob('*/**/*.py')):
        name = path.relative_to(root / 'configs').parts[0]
        if name.startswith(('_', '.')) or name == MINE:
            continue
        if path.name in seen:
            raise ValueError(f'{seen[path.name]} and {path} have one name; rename one of them')
        seen[path.name] = path
        found.setdefault(name, []).append(path)
    if not found:
        raise FileNotFoundError(f'no config in {root / "configs"}/COLLECTION/; expected a checkout of mmseg_semi')
    return found


def architecture(cfg: Config) -> List[str]:
    """Method, backbone and head, as the config names them; empty for a plan without a model of its own."""
    model = cfg.get('model')
    if model is None:
        return []
    backbone = model.backbone.get('model_name') or model.backbone.type
    depth = f'-{model.backbone.depth}' if 'depth' in model.backbone else ''
    head = model.decode_head[-1] if isinstance(model.decode_head, list) else model.decode_head  # the last of a cascade
    return [model.type, f'{backbone}{depth}', head.type]


def dataset(cfg: Config) -> Optional[str]:
    """Name of the data set that the config tests on; None for a plan without one."""
    node = cfg.get('test_dataloader', {}).get('dataset')
    while node is not None and ('dataset' in node or 'datasets' in node):
        node = node.get('dataset') or node.datasets[0]
    if node is None:
        return None
    return 'Custom' if node.type == 'BaseSegDataset' else node.type.removesuffix('Dataset')


def read_scores(path: Path) -> Dict[str, Dict[int, float]]:
    """Config -> seed -> mIoU in percent at the last step, of the network that predicts."""
    scores: Dict[str, Dict[int, float]] = {}
    for row in json.loads(path.read_text())['rows'] if path.is_file() else []:
        if row['profile'] == AS_IT_IS:
            scores.setdefault(row['config'], {})[row['seed']] = row['teacher_last' if 'teacher_last' in row else 'last']
    return scores


def describe(root: Path, name: str, path: Path, scores: Dict[int, float]) -> dict:
    """The entry of one config of the collection ``name``.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
        found = {'Training Data': dataset(cfg), 'Architecture': architecture(cfg)}
    except Exception as error:  # a config is a program
        raise ValueError(f'{path} cannot be described: {type(error).__name__}: {error}') from error
    entry = {'Name': path.stem, 'In Collection': name, 'Config': path.relative_to(root).as_posix(),
             'Metadata': {key: value for key, value in found.items() if value}}
    if scores:
        entry['Results'] = [{
            'Task': 'Semantic Segmentation', 'Dataset': found['Training Data'],
            'Metrics': {'mIoU': round(sum(scores.values()) / len(scores), 2)}, 'Seeds': sorted(scores)}]
    return {key: value for key, value in entry.items() if value}


def collection(root: Path, name: str, models: List[dict]) -> dict:
    """The head of a metafile."""
    head = {'Name': name, 'License': 'Apache License 2.0'}
    data = sorted({model.get('Metadata', {}).get('Training Data', '') for model in models} - {''})
    if data:
        head['Metadata'] = {'Training Data': data}
    base = root / 'configs' / '_base_' / 'semi' / f'{name}.py'
    comment = re.match(r'(#.*\n)+', base.read_text()) if base.is_file() else None
    link = re.search(r'https://arxiv\.org/abs/[\d.]*\d', comment.group()) if comment else None
    return {**head, 'Paper': {'URL': link.group()}} if link else head


def make_index(root: Path) -> Dict[Path, str]:
    """Every file and its text."""
    collections, scores = find_configs(root), read_scores(root / 'docs' / 'benchmarks' / 'camvid.json')
    paths = [(name, path) for name, members in collections.items() for path in members]
    configs = {path: path.relative_to(root).as_posix() for _, path in paths}
    unknown = sorted(set(scores) - set(configs.values()))
    if unknown:
        raise ValueError(f'docs/benchmarks/camvid.json has rows of {", ".join(unknown)}, which is not there; rename '
                         'the config in the rows, too')
    entries: Dict[str, List[dict]] = {name: [] for name in collections}
    for name, path in track_iter_progress(paths, file=sys.stderr):
        entries[name].append(describe(root, name, path, scores.get(configs[path], {})))
    print(file=sys.stderr)
    files = {root / 'model-index.yml': {'Import': [f'configs/{name}/metafile.yml' for name in collections]}}
    for name, models in entries.items():
        files[root / 'configs' / name / 'metafile.yml'] = {
            'Collections': [collection(root, name, models)], 'Models': models}
    return {path: HEADER + yaml.safe_dump(content, sort_keys=False, width=120) for path, content in files.items()}


def main() -> int:
    """Writes or checks; returns the exit status: 0 fine, 1 a file is out of date, 2 a mistake in the configs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; say which files are out of date')
    parser.add_argument('--root', type=Path, default=ROOT, help='the checkout (default: the one of this script)')
    args = parser.parse_args()
    root = args.root.resolve()
    try:
        files = make_index(root)
    except (ValueError, FileNotFoundError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    present = [root / 'model-index.yml', *(path for path in sorted((root / 'configs').glob('*/metafile.yml'))
                                           if path.parent.name != MINE)]
    changed = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    changed += [path for path in present if path.is_file() and path not in files]  # a folder without configs by now
    for path in changed:
        print(f'{path.relative_to(root)} {"is out of date" if args.check else "written"}')
        if not args.check:
            _write(path, files.get(path))
    if args.check and changed:
        print('error: run python tools/misc/model_index.py and commit what it writes', file=sys.stderr)
    elif not changed:
        print(f'{len(files)} files are up to date')
    return 1 if args.check and changed else 0


def _write(path: Path, text: Optional[str]) -> None:
    if text is None:
        path.unlink()
        return
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    part.write_text(text)
    part.replace(path)


if __name__ == '__main__':
    sys.exit(main())
