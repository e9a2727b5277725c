"""Rows of the CamVid benchmark: which training run each one is."""
import hashlib
import json
import os
from pathlib import Path
from typing import Iterator, List, Optional

from mmengine.config import Config

from camvid_bench.common import ROOT, UserError, read_json

DEFAULT_DATA = '../shared/data/camvid'

# What a profile changes in the configs. steps: iterations; val: iterations between two validations; scale, crop:
# (width, height) of the images and (height, width) of the crops; None keeps the config's. methods: the default of
# --methods, None is all.
PROFILES = {
    'smoke': dict(steps=10, val=5, scale=None, crop=None, amp=False, methods=['supervised', 'pcr'],
                  splits=['drives_24'],
                  options={'val_dataloader.dataset.indices': 8, 'default_hooks.logger.interval': 1}),
    'laptop': dict(steps=None, val=None, scale=None, crop=None, amp=False, methods=None,
                   splits=['drives_24', 'drives_12'], options={}),
    'gpu': dict(steps=20000, val=1000, scale=(480, 360), crop=(320, 320), amp=True, methods=None,
                splits=['drives_24', 'drives_12'], options={'train_dataloader.num_workers': 8}),
}
LABELS = {'drives_24': 24, 'drives_12': 12, 'all': 367}


class Row:
    """One training run.

    Args:
        method (str): What its config's name begins with.
        split (str): A key of ``LABELS``.
        seed (int): ``randomness.seed``.
        profile (str): A key of ``PROFILES``.
        work_dir (Path): Of the whole benchmark.

    Raises:
        UserError: If there is no config for the row.
    """

    def __init__(self, method: str, split: str, seed: int, profile: str, work_dir: Path) -> None:
        self.method, self.split, self.seed, self.profile = method, split, seed, profile
        self.name = f'{profile}_{method}_{split}_seed{seed}'
        self.dir = work_dir / self.name
        name = f'{method}_lite0_camvid_{LABELS[split]}.py'
        found = list(ROOT.glob(f'configs/*/{name}'))
        if not found:
            raise UserError(f'no config {name} for method {method} with {LABELS[split]} labels')
        self.config = found[0].relative_to(ROOT).as_posix()
        cfg = Config.fromfile(ROOT / self.config, import_custom_modules=False)
        options = profile_options(cfg, PROFILES[profile], seed)
        self.flags = ['--cfg-options', *(f'{key}={_plain(value)}' for key, value in options.items())]
        if PROFILES[profile]['amp']:
            self.flags.insert(0, '--amp')
        cfg.merge_from_dict(options)
        self.steps = cfg.train_cfg.max_iters
        #: Where the trainings of the row keep their logs and scores: one, or one per training stage of a plan.
        self.runs = [self.dir / name for name in training_folders(cfg)]
        for key in ('data_root', 'data_hint'):  # nothing that trains
            cfg.pop(key, None)
        self.fingerprint = hashlib.sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).replace(
            os.environ.get('CAMVID_ROOT', DEFAULT_DATA), '').encode()).hexdigest()[:16]

    @property
    def command(self) -> List[str]:
        """Without the interpreter; relative to the repository. tools/train.py also runs plans, and resumes them."""
        folder = os.path.relpath(self.dir, ROOT)
        return ['tools/train.py', self.config, '--work-dir', str(self.dir) if folder.startswith('..') else folder,
                *self.flags]

    @property
    def result(self) -> Optional[dict]:
        """The finished row, or None."""
        return read_json(self.dir / 'row.json')


def _plain(value) -> str:
    return '(' + ','.join(map(str, value)) + ')' if isinstance(value, tuple) else str(value)


def profile_options(cfg: Config, profile: dict, seed: int) -> dict:
    """The ``--cfg-options`` that turn a config into one of a profile.

    The learning rate schedule and the labeled-only phase keep their share of the run.

    Args:
        cfg (Config): Leaf config.
        profile (dict): A value of ``PROFILES``.
        seed (int): Of the run.

    Returns:
        dict: Dotted keys; indices of lists are numbers.
    """
    options = {'randomness.seed': seed, 'default_hooks.checkpoint.max_keep_ckpts': 2}
    old, new = cfg.train_cfg.max_iters, profile['steps']
    if new:
        options.update({'train_cfg.max_iters': new, 'train_cfg.val_interval': profile['val'],
                        'default_hooks.checkpoint.interval': profile['val']})
        scheduler = cfg.param_scheduler
        options.update({f'param_scheduler.{key}': round(scheduler[key] * new / old)
                        for key in ('begin', 'end') if scheduler.get(key)})
        if cfg.model.get('start_iter'):
            options['model.start_iter'] = round(cfg.model.start_iter * new / old)
    if profile['scale']:
        options['model.data_preprocessor.size'] = profile['crop']
        # The last two: what a plan labels, and what it trains on then.
        for part in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'unlabeled', 'pseudo_pipeline'):
            for path, transform in _typed(cfg.get(part), part):
                if transform['type'] in ('RandomResize', 'RandomScale', 'Resize'):
                    options[f'{path}.scale'] = profile['scale']
                elif transform['type'] == 'RandomCrop':
                    options[f'{path}.crop_size'] = profile['crop']
    options.update(profile['options'])
    return options


def training_folders(cfg: Config) -> List[str]:
    """Folders in the work dir of the trainings of a config, the one that counts last: ``['']`` unless it is a plan."""
    if not cfg.get('self_training'):
        return ['']
    return [f'{i:02d}_{stage["name"]}' for i, stage in enumerate(cfg.self_training.stages, 1)
            if stage['type'] == 'TrainStage']


def _typed(node, path: str) -> Iterator[tuple]:
    """Every dict with a ``type`` below a config node, and its dotted path."""
    if isinstance(node, dict):
        if 'type' in node:
            yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from _typed(child, f'{path}.{key}')


def find_methods() -> List[str]:
    """Methods that have a CamVid config, the supervised baseline first."""
    end = '_lite0_camvid_24.py'
    found = {path.name[:-len(end)] for path in ROOT.glob(f'configs/*/*{end}')}
    return sorted(found, key=lambda name: (name != 'supervised', name))
