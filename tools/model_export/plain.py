"""A config and a checkpoint that need mmseg alone."""
import copy
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS, METRICS

from .output import staged
from .parts import PREFIX, SEARCH, from_us, imports_of, name_of, ours, take_along, typed
from .source import ExportError, Source, own_images, rounding, whole_logits

KEPT = ('default_scope', 'custom_imports', 'env_cfg', 'vis_backends', 'visualizer', 'log_processor', 'log_level',
        'test_cfg', 'tta_model')
TEST_HOOKS = ('timer', 'logger', 'visualization')
TEST_CFG = ('mode', 'crop_size', 'stride')
SLIDE_AS_MMSEG = dict(slide_average='logits', slide_windows='shifted')

# Runs where mmseg_semi cannot be imported: loads the pair as any user of mmseg does, and predicts.
CHECK = '''
import sys
sys.modules['mmseg_semi'] = None
import torch
from mmseg.apis import init_model
from mmseg.structures import SegDataSample
config, checkpoint, images, logits = sys.argv[1:]
model = init_model(config, checkpoint, device='cpu', cfg_options=dict(model=dict(test_cfg=dict(mode='whole'))))
images = torch.load(images, weights_only=True)
samples = [SegDataSample() for _ in images]
inputs = model.data_preprocessor(dict(inputs=list(images), data_samples=samples), False)['inputs']
shape = tuple(inputs.shape[2:])
torch.manual_seed(0)
with torch.no_grad():
    found = model.encode_decode(inputs, [dict(ori_shape=shape, img_shape=shape, pad_shape=shape)] * len(inputs))
torch.save(found, logits)
'''


def export_plain(source: Source, out: Path) -> List[str]:
    """Writes ``out/config.py``, ``out/checkpoint.pth`` and the parts of ours that they need, and lets mmseg alone
    predict with them.

    Args:
        source (Source): The network.
        out (Path): A folder that does not exist yet.

    Returns:
        list[str]: What to tell the user.

    Raises:
        ExportError: If a part has no equivalent in mmseg, or the pair predicts something else.
    """
    cfg, notes, files = plain_config(source)
    meta = {key: value for key, value in source.meta.items() if key in ('epoch', 'iter', 'dataset_meta', 'time')}
    with staged(out) as folder:
        folder.mkdir()
        text = (f'# The {source.name} of {Path(source.cfg.filename).name}, exported by tools/export.py of mmseg_semi. '
                f'It needs mmseg alone.\n{"".join(f"# {note}{chr(10)}" for note in notes)}'
                f'{SEARCH if files else ""}{cfg.pretty_text}')
        for name, content in {'config.py': text, **files}.items():
            (folder / name).write_text(content, encoding='utf-8')
        torch.save(dict(meta=dict(meta, cfg=cfg.pretty_text), state_dict=source.network.state_dict()),
                   folder / 'checkpoint.pth')
        difference = _verify(source, folder)
    same = f'logits within {difference:.2g}, which is rounding' if difference else 'the same to the last bit'
    return notes + [f'stock mmseg, with mmseg_semi out of reach, predicts {same}']


def plain_config(source: Source) -> Tuple[Config, List[str], Dict[str, str]]:
    """The config for tests and inference with mmseg alone.

    Returns:
        tuple[Config, list[str], dict[str, str]]: The config, what the user should know about it, and the text of the
        files that belong beside it, by name.

    Raises:
        ExportError: If a part has no equivalent in mmseg.
    """
    notes = ['For tests and inference: auxiliary heads and everything about training is left out.']
    if source.is_random:
        notes.append('Its head draws random numbers while it predicts, so scores of two tests differ a little.')
    old = source.cfg.to_dict()
    if any(name.startswith(PREFIX) for name in imports_of(old)):
        raise ExportError(f'{source.cfg.filename} is a plain export already; give the config of the training')
    cfg = {key: copy.deepcopy(old[key]) for key in KEPT if key in old}
    _drop_import(cfg)
    model = copy.deepcopy(source.model_cfg)
    model['decode_head']['loss_decode'] = dict(type='CrossEntropyLoss')  # a head must have one
    model['test_cfg'] = _test_cfg(model['test_cfg'])
    cfg['model'] = model
    hooks = {name: hook for name, hook in old.get('default_hooks', {}).items() if name in TEST_HOOKS and hook}
    # What stock `--show-dir` asks for.
    cfg['default_hooks'] = {'visualization': dict(type='SegVisualizationHook', interval=1), **hooks}
    loader = copy.deepcopy(old.get('test_dataloader') or old.get('val_dataloader'))
    if loader:
        loader['dataset'] = _dataset(loader['dataset'], source, notes)
        cfg['test_dataloader'] = loader
        cfg['test_evaluator'] = _evaluator(old.get('test_evaluator') or old.get('val_evaluator'), notes)
        cfg.setdefault('test_cfg', dict(type='TestLoop'))
        # mmseg's inference_model takes LoadAnnotations out of this list, its inferencer out of the dataset's.
        cfg['test_pipeline'] = copy.deepcopy(loader['dataset'].get('pipeline', old.get('test_pipeline')))
    else:
        cfg.pop('test_cfg', None)  # a runner takes loader, evaluator and loop together or not at all
    if 'tta_pipeline' in old:
        cfg['tta_pipeline'] = _without_checks(old['tta_pipeline'])
    files = take_along(cfg)
    if files:
        notes.append(f'What mmseg lacks is in {", ".join(files)}, which must stay beside this config; a copy of it in '
                     'another place, such as in a work dir, needs the folder on PYTHONPATH.')
    refuse_ours(cfg)
    return Config(cfg), notes, files


def refuse_ours(cfg: dict) -> None:
    """Looks for parts that only mmseg_semi has.

    Raises:
        ExportError: If there is one; names where.
    """
    parts = ours()
    for where, _, name in typed(cfg):
        if name in parts:
            raise ExportError(f'{where}.type is {name} of mmseg_semi, for which mmseg has no equivalent: a '
                              'plain export is not possible. The other kinds need neither of them')


def _drop_import(cfg: dict) -> None:
    imports = cfg.pop('custom_imports', {})
    kept = [name for name in imports_of(dict(custom_imports=imports)) if name.split('.')[0] != 'mmseg_semi']
    if kept:
        cfg['custom_imports'] = dict(imports, imports=kept)


def _test_cfg(cfg: dict) -> dict:
    """Keeps mmseg's keys.

    Raises:
        ExportError: If a setting of ours changes the prediction.
    """
    wrong = [key for key, value in cfg.items()
             if cfg.get('mode') == 'slide' and key not in TEST_CFG and value != SLIDE_AS_MMSEG.get(key)]
    if wrong:
        found = ', '.join(f'{key}={cfg[key]!r}' for key in wrong)
        options = ' '.join(f'model.test_cfg.{key}={SLIDE_AS_MMSEG.get(key)}' for key in wrong)
        raise ExportError(f'model.test_cfg has {found}, which mmseg cannot do: a plain export takes --cfg-options '
                          f'{options}, which scores differently. The other kinds leave windows to the '
                          'program that calls them')
    return {key: value for key, value in cfg.items() if key in TEST_CFG}


def _without_checks(pipeline: list) -> list:
    """The same pipeline, test-time augmentation included, without the mask check, which changes nothing."""
    return [_without_checks(step) if isinstance(step, (list, tuple)) else
            dict(step, transforms=_without_checks(step['transforms'])) if 'transforms' in step else copy.deepcopy(step)
            for step in pipeline if not (isinstance(step, dict) and name_of(step['type']) == 'CheckSegMap')]


def _dataset(node: dict, source: Source, notes: List[str]) -> dict:
    """The dataset as one of mmseg."""
    node = copy.deepcopy(node)
    if 'pipeline' in node:  # wrappers have none
        node['pipeline'] = _without_checks(node['pipeline'])
    kind = DATASETS.get(node['type'])
    if not from_us(kind):
        return node
    methods = [name for base in kind.__mro__ if from_us(base) for name, value in vars(base).items()
               if inspect.isfunction(value) and name != '__init__']
    if issubclass(kind, BaseSegDataset) and not methods:
        built = DATASETS.build(dict(node, pipeline=[], lazy_init=True))
        node.update(type='BaseSegDataset', **{name: getattr(built, name) for name in (
            'img_suffix', 'seg_map_suffix', 'reduce_zero_label', 'ignore_index')})
        node['metainfo'] = _names(built.metainfo)
        return node
    notes.append(f'mmseg has no dataset like {node["type"]}: before a test, set data_root, data_prefix and the '
                 'suffixes of test_dataloader.dataset to those of your data; inference needs none of them.')
    return dict(type='BaseSegDataset', data_root=node.get('data_root') or 'data',
                data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=node.get('pipeline', []),
                metainfo=_names(source.meta.get('dataset_meta') or node.get('metainfo') or {}))


def _names(metainfo: dict) -> dict:
    return {key: metainfo[key] for key in ('classes', 'palette') if metainfo.get(key) is not None}


def _evaluator(cfg: Any, notes: List[str]) -> dict:
    """The first of mmseg's metrics: stock tools/test.py --out takes one."""
    metrics = [cfg] if isinstance(cfg, dict) else list(cfg or [])
    stock = [metric for metric in metrics if not from_us(METRICS.get(metric['type']))]
    dropped = [metric['type'] for metric in metrics if metric not in stock[:1]]
    if dropped:
        notes.append(f'The test scores by one metric; left out: {", ".join(dropped)}.')
    return copy.deepcopy(stock[0]) if stock else dict(type='IoUMetric', iou_metrics=['mIoU'])


def _verify(source: Source, folder: Path) -> float:
    """Lets stock mmseg predict with the pair, in a process that cannot import mmseg_semi.

    Returns:
        float: The largest difference of the logits.

    Raises:
        ExportError: If it fails, or predicts something else.
    """
    inputs = own_images(source.network)
    images, logits = folder / 'images.pt', folder / 'logits.pt'
    torch.save(inputs, images)
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', 'PYTHONDONTWRITEBYTECODE': '1',
           'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', CHECK, folder / 'config.py', folder / 'checkpoint.pth',
                           images, logits], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        last: Optional[str] = (done.stdout.strip().splitlines() or ['no message'])[-1]
        raise ExportError(f'stock mmseg cannot use the exported pair: {last}')
    found, expected = torch.load(logits, weights_only=True), whole_logits(source.network, inputs)
    difference = rounding(found, expected)
    if difference is None:
        raise ExportError('stock mmseg predicts something else with the exported pair: logits differ by '
                          f'{(found - expected).abs().max():.3g}')
    images.unlink(), logits.unlink()
    return difference
