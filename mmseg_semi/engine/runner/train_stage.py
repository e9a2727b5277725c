"""A stage that is one ordinary training run."""
import copy
import inspect
import itertools
import json
import logging
import math
from pathlib import Path
from typing import Dict, Optional, Sequence, Union

from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.runner.resume import go_on, keep_two_checkpoints
from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.engine.runner.state import is_whole, usable_checkpoint
from mmseg_semi.files import write_text
from mmseg_semi.registry import HOOKS, STAGES

RUNS = itertools.count()
# Where and how, not what. Other keys than those that a Runner takes are variables of the config.
IRRELEVANT = ('work_dir', 'launcher', 'resume', 'env_cfg', 'experiment_name', 'model_wrapper_cfg', 'log_level',
              'log_processor', 'visualizer', 'test_dataloader', 'test_evaluator', 'test_cfg')
RELEVANT = {*inspect.signature(Runner.__init__).parameters, 'custom_imports', 'sync_bn'}.difference(IRRELEVANT)
IRRELEVANT_HOOKS = ('logger', 'timer', 'visualization')
IRRELEVANT_OF_LOADERS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory')


def without(settings: Optional[dict], keys: Sequence[str]) -> dict:
    """A copy of a dict without some keys."""
    return {key: value for key, value in (settings or {}).items() if key not in keys}


@HOOKS.register_module()
class ExportCheckpointHook(Hook):
    """Keeps checkpoints of given iterations for good, beside those that ``CheckpointHook`` rotates.

    Args:
        files (dict): Iteration -> file name in ``work_dir``.
    """

    # Before CheckpointHook: a run that is killed in between comes here again.
    priority = 'LOW'

    def __init__(self, files: Dict[int, str]) -> None:
        self.files = {int(iteration): name for iteration, name in files.items()}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Saves after the iterations that are asked for."""
        name = self.files.get(runner.iter + 1)
        if name:
            # Whole under its name or not at all.
            runner.save_checkpoint(runner.work_dir, f'{name}.part', save_optimizer=False, save_param_scheduler=False,
                                   by_epoch=False)
            if runner.rank == 0:
                (Path(runner.work_dir) / f'{name}.part').replace(Path(runner.work_dir) / name)


@STAGES.register_module()
class TrainStage(Stage):
    """One mmengine run of a full config; resumed from its last checkpoint when it was stopped.

    Random numbers depend on ``randomness.seed``, rank and iteration alone, so that with a seed, on a CPU, a resumed run
    ends with the weights of one that was never stopped, for any number of workers.

    Artifacts: ``config``, the config as it ran; ``last``; ``best``, by ``save_best``, or the last one if validation
    never found a best; ``metrics`` (``metrics.json``: last and best ``mIoU`` of validation in percent, null if there is
    none); ``at_0``, ``at_1``, ... for ``export``.

    Args:
        cfg (str | dict): Config file, relative to the plan's, or a config. Defaults to the plan's own.
        dataset (dict): Training set in place of the config's.
        batch_size (int): Images per GPU and step in place of the config's.
        epochs (int): Length of the run, together with ``epoch_steps``: ``epochs * epoch_steps`` iterations, validated
            and saved after each epoch. The learning rate falls over the whole of it. Defaults to the config's length.
        epoch_steps (int): Iterations of an epoch.
        cfg_options (dict): Dotted keys that override the config last. Values may be references. ``custom_hooks`` go
            before those of the config, in place of hooks of the same types.
        export (Sequence[float]): Fractions f of training in (0, 1): the checkpoint after ``floor(f * max_iters)``
            iterations is kept as ``at_i``.

    Raises:
        ValueError: If a fraction is outside (0, 1) or names no iteration of its own, the config trains by epochs, lacks
            a part or saves no checkpoint of the last iteration in the stage's folder, or a length is not positive.
    """

    mends = ('config', 'metrics')

    def __init__(self, cfg: Union[None, str, dict] = None, dataset: Optional[dict] = None,
                 batch_size: Optional[int] = None, epochs: Optional[int] = None, epoch_steps: Optional[int] = None,
                 cfg_options: Optional[dict] = None, export: Sequence[float] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        self.cfg = self._load(self.plan_cfg if cfg is None else cfg)
        missing = [key for key in ('model', 'train_dataloader', 'train_cfg') if not self.cfg.get(key)]
        if missing:
            raise ValueError(f'the config of a TrainStage lacks {", ".join(missing)}; expected a whole training config')
        if dataset is not None:
            self.cfg.train_dataloader.dataset = ConfigDict(dataset)
        if batch_size is not None:
            self.cfg.train_dataloader.batch_size = batch_size
        if epochs is not None or epoch_steps is not None:
            self._set_length(epochs, epoch_steps)
        self._merge(cfg_options or {})
        if self.cfg.train_cfg.get('type') != 'IterBasedTrainLoop':
            raise ValueError(f'TrainStage needs train_cfg.type="IterBasedTrainLoop", found '
                             f'{self.cfg.train_cfg.get("type")!r}')
        self._check_checkpoint_hook()
        if not all(0 < fraction < 1 for fraction in export):
            raise ValueError(f'TrainStage.export must hold fractions in (0, 1), found {list(export)}')
        # A third of 3n iterations is n, also where the product rounds below.
        self.exports = [int(self.cfg.train_cfg.max_iters * fraction + 1e-6) for fraction in export]
        if 0 in self.exports or len(set(self.exports)) < len(self.exports):
            raise ValueError(f'TrainStage.export={list(export)} of max_iters={self.cfg.train_cfg.max_iters} are the '
                             f'iterations {self.exports}; expected different ones, at least 1')
        self.artifacts = ('config', 'last', 'best', 'metrics', *(f'at_{i}' for i in range(len(self.exports))))

    def _load(self, cfg: Union[str, dict]) -> Config:
        if not isinstance(cfg, str):
            return Config(copy.deepcopy(dict(cfg)))
        path = self.here / cfg
        return Config.fromfile(path if path.is_file() else cfg)

    def _merge(self, options: dict) -> None:
        """Overrides the config; its hooks stay beside those of the stage, but for hooks of the same type."""
        hooks = list(options.get('custom_hooks') or [])
        types = [hook.get('type') for hook in hooks]
        kept = [hook for hook in self.cfg.get('custom_hooks') or [] if hook.get('type') not in types]
        self.cfg.merge_from_dict(options)
        if hooks:
            self.cfg.custom_hooks = [*hooks, *kept]

    def _set_length(self, epochs: Optional[int], epoch_steps: Optional[int]) -> None:
        if not epochs or not epoch_steps or min(epochs, epoch_steps) < 1:
            raise ValueError(f'TrainStage.epochs and epoch_steps must both be positive, found {epochs} and '
                             f'{epoch_steps}')
        self.cfg.merge_from_dict({
            'train_cfg.max_iters': epochs * epoch_steps, 'train_cfg.val_interval': epoch_steps,
            'default_hooks.checkpoint.interval': epoch_steps})
        schedulers = self.cfg.get('param_scheduler') or {}
        last = schedulers[-1] if isinstance(schedulers, (list, tuple)) else schedulers  # those before it are warm-ups
        if last.get('begin', 0) >= epochs * epoch_steps:
            raise ValueError(f'TrainStage: the last param_scheduler begins at iteration {last.begin}, but epochs and '
                             f'epoch_steps make {epochs * epoch_steps}')
        last['end'] = epochs * epoch_steps

    def _check_checkpoint_hook(self) -> None:
        hook = (self.cfg.get('default_hooks') or {}).get('checkpoint', {})  # mmengine's default is by epoch
        if hook is None:
            raise ValueError('TrainStage needs default_hooks.checkpoint, found None')
        interval = hook.get('interval', -1)
        ends = interval > 0 and self.cfg.train_cfg.max_iters % interval == 0
        for key, default, fits, expected in (
            ('by_epoch', True, lambda value: not value, False),
            ('filename_tmpl', None, lambda value: value is None, None),
            ('out_dir', None, lambda value: value is None, None),
            ('save_last', True, lambda value: value or ends, True),
        ):
            if not fits(hook.get(key, default)):
                raise ValueError(f'TrainStage needs default_hooks.checkpoint.{key}={expected}, found '
                                 f'{hook.get(key, default)!r}; its iter_*.pth are what it resumes from and ends with')

    def settings(self) -> dict:
        """The config without what does not change the result, and the exports."""
        settings = {key: value for key, value in self.cfg.to_dict().items() if key in RELEVANT}
        settings['default_hooks'] = without(settings.get('default_hooks'), IRRELEVANT_HOOKS)
        for key in ('train_dataloader', 'val_dataloader'):
            settings[key] = without(settings.get(key), IRRELEVANT_OF_LOADERS)
        return dict(settings, exports=self.exports)

    def run(self) -> Dict[str, Path]:
        """Trains; returns the checkpoints."""
        cfg = copy.deepcopy(self.cfg)
        cfg.work_dir, cfg.launcher, cfg.env_cfg = str(self.folder), self.launcher, self.env_cfg
        adapt(cfg, self.launcher)
        keep_two_checkpoints(cfg)
        # Else runs of one second would share mmengine's message hub, and with it the best score.
        cfg.experiment_name = f'{self.folder.name}_{next(RUNS)}'
        if cfg.get('visualizer'):
            # Else a name in the config would make the first training's visualizer, and its folder, that of all.
            cfg.visualizer = dict(cfg.visualizer, name=cfg.experiment_name)
        go_on(cfg)
        barrier()  # a rank that is ahead would save what another still looks for
        outputs = {f'at_{i}': self.folder / f'at_{i}.pth' for i in range(len(self.exports))}
        files = {iteration: path.name for iteration, path in zip(self.exports, outputs.values(), strict=True)}
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='ExportCheckpointHook', files=files),
                            dict(type='ReplayHook')]
        if cfg.train_dataloader.sampler.type != 'ReplaySampler':
            cfg.train_dataloader.sampler = dict(type='ReplaySampler', sampler=cfg.train_dataloader.sampler)
        runner = Runner.from_cfg(cfg)
        runner.train()
        barrier()  # rank 0 may still save what all look for
        outputs['last'] = usable_checkpoint(self.folder)
        outputs['best'] = self._best() or outputs['last']
        outputs['config'] = self.folder / 'config.py'
        outputs['metrics'] = self.folder / 'metrics.json'
        if runner.rank == 0:
            self.cfg.dump(outputs['config'])
            write_text(outputs['metrics'], json.dumps(dict(mIoU=self._scores(runner))) + '\n')
        return outputs

    @staticmethod
    def _scores(runner: Runner) -> Dict[str, Optional[float]]:
        """Last and best mIoU of all validations, those before a resume too."""
        history = runner.message_hub.log_scalars.get('val/mIoU')
        values = [float(value) for value in history.data[0]] if history else []
        known = [value for value in values if math.isfinite(value)]
        return dict(last=values[-1] if values and math.isfinite(values[-1]) else None, best=max(known, default=None))

    def _best(self) -> Optional[Path]:
        """The best checkpoint, None if validation named none."""
        found = sorted(self.folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        if not found:
            print_log(f'{self.folder.name}: validation named no best checkpoint; the last one stands in for it.',
                      'current', level=logging.WARNING)
            return None
        if not is_whole(found[-1]):  # neither the last checkpoint nor an earlier best is what was asked for
            raise ValueError(f'{found[-1]} is cut off, and the resumed training did not save it again; expected a '
                             f'whole checkpoint. Delete {self.folder} to train this stage anew')
        return found[-1]
