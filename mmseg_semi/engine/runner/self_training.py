"""Self-training in stages: a plan of training, labeling and selection that survives a crash at any moment."""
import copy
import errno
import fcntl
import gc
import inspect
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import IO, Callable, Dict, List, Tuple

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, get_rank, init_dist, is_distributed
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mmseg_semi.engine.runner.image_sets import MASKS_SHA, MissingImages, by_images
from mmseg_semi.engine.runner.preflight import check_stage
from mmseg_semi.engine.runner.stage import PlanError, Stage, config_keys, references, replace_config, replace_references
from mmseg_semi.engine.runner.state import State, damage, differences, digest, fingerprint
from mmseg_semi.engine.runner.train_stage import TrainStage
from mmseg_semi.files import whole
from mmseg_semi.registry import RUNNERS, STAGES

FIELDS = ('stages', 'start', 'until', 'dry_run', 'on_stale')
DONE = 'done before, skipped'
LOGS = itertools.count()


@RUNNERS.register_module()
class SelfTrainingRunner:
    """Runs the stages of ``cfg.self_training`` in order, under the stock ``tools/train.py`` (``runner_type``).

    A stage is a dict with ``name``, ``type`` and the options of its class; any string ``'stage:artifact'`` in it stands
    for an output of an earlier stage, any ``'config:key'`` for a part of the plan's config (:func:`replace_config`).
    Each stage has a folder ``NN_name`` in ``work_dir``; ``state.json`` says what is done. A stage is skipped while its
    settings and inputs are the same and its outputs are whole; one that was stopped goes on where it was. Nothing that
    a stage made is deleted unless ``on_stale='rerun'`` allows it.

    ``self_training`` may also hold: ``start`` (name of the first stage to run; those before must be done), ``until``
    (name of the last one), ``dry_run`` (only tell what would run), ``on_stale``: what to do with a stage whose settings
    have changed since, or whose outputs are lost and cannot be made good in place: ``'error'`` (default) or
    ``'rerun'``, it and all that depends on it.

    Args:
        cfg (Config): With ``self_training`` and ``work_dir``.

    Raises:
        PlanError: If the plan is wrong; the message names the stage.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        plan = cfg.get('self_training')
        if not plan or not plan.get('stages'):
            raise PlanError('SelfTrainingRunner needs self_training=dict(stages=[...]) in the config, found '
                            f'{plan!r}')
        unknown = set(plan) - set(FIELDS)
        if unknown:
            raise PlanError(f'self_training: unknown settings {sorted(unknown)}; expected some of {list(FIELDS)}')
        self.options = {key: plan.get(key) for key in FIELDS[1:]}
        if self.options['on_stale'] not in (None, 'error', 'rerun'):
            raise PlanError(f"self_training.on_stale must be 'error' or 'rerun', found {self.options['on_stale']!r}")
        content = cfg.to_dict()
        stages = content.pop('self_training')['stages']
        self.names = [stage.get('name') for stage in stages]
        self.stages = [self._with_config(stage, content) for stage in stages]
        self.plan_cfg = self._training_config(content, stages)
        self.launcher = cfg.get('launcher', 'none')
        self.env_cfg = cfg.get('env_cfg', {})
        self.work_dir = Path(cfg.work_dir).resolve()
        self.here = Path(cfg.filename).resolve().parent if cfg.filename else Path.cwd()
        self.kept = False
        self._check()

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'SelfTrainingRunner':
        """As ``Runner.from_cfg``."""
        return cls(cfg)

    @staticmethod
    def _with_config(stage: dict, cfg: dict) -> dict:
        try:
            return replace_config(stage, cfg)
        except ValueError as error:
            raise PlanError(f'stage {stage.get("name")}: {error}') from error

    @staticmethod
    def _training_config(cfg: dict, stages: List[dict]) -> dict:
        """The config without what only stages read: it counts where it is used, so no other stage becomes stale."""
        read = {key.split('.')[0] for key in config_keys(stages)} - set(inspect.signature(Runner.__init__).parameters)
        return {key: value for key, value in cfg.items() if key not in read and key != 'runner_type'}

    def _check(self) -> None:
        """Finds mistakes of the plan before anything runs."""
        made: Dict[str, tuple] = {}
        self.built: Dict[str, Stage] = {}  # with references as they stand in the plan
        for i, (name, stage) in enumerate(zip(self.names, self.stages, strict=True)):
            if not isinstance(name, str) or not name.isidentifier():
                raise PlanError(f'self_training.stages[{i}].name must be a word of letters, digits and _, found '
                                f'{name!r}')
            if name == 'config':
                raise PlanError(f"self_training.stages[{i}].name: 'config' is taken, for 'config:KEY'; give another")
            if self.names.index(name) != i:
                raise PlanError(f'self_training.stages: two stages are named {name!r}')
            if STAGES.get(stage.get('type', '')) is None:
                raise PlanError(f'stage {name}: no stage of type {stage.get("type")!r}; there are '
                                f'{sorted(STAGES.module_dict)}')
            for reference in references(stage, self.names):
                source, artifact = reference.split(':')
                if source not in made:
                    raise PlanError(f'stage {name}: {reference!r} must come from an earlier stage')
                if artifact not in made[source]:
                    raise PlanError(f'stage {name}: {reference!r} does not exist; stage {source} makes '
                                    f'{", ".join(made[source])}')
            self.built[name] = self._build(i, {reference: reference for reference in references(stage, self.names)})
            made[name] = self.built[name].artifacts
        for key in ('start', 'until'):
            if self.options[key] is not None and self.options[key] not in self.names:
                raise PlanError(f'self_training.{key}={self.options[key]!r} is no stage; there are '
                                f'{", ".join(self.names)}')
        first, last = self._range()
        if first > last:
            raise PlanError(f'self_training.start={self.options["start"]!r} comes after '
                            f'until={self.options["until"]!r}, so nothing would run; the stages are '
                            f'{", ".join(self.names)}')

    def _range(self) -> Tuple[int, int]:
        """Positions of the first and the last stage to run."""
        start, until = self.options['start'], self.options['until']
        return self.names.index(start) if start else 0, self.names.index(until or self.names[-1])

    # ---- the run ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Runs the plan."""
        distributed = self.launcher != 'none'
        # As a Runner does first; otherwise init_dist lets loaders spawn their workers.
        set_multi_processing(**self.env_cfg.get('mp_cfg', {}), distributed=distributed)
        if distributed and not is_distributed():
            init_dist(self.launcher, **self.env_cfg.get('dist_cfg', {}))
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._log_here()
        with open(self.work_dir / 'lock', 'w') as lock:
            if get_rank() == 0:
                self._lock(lock)
                for path in self.work_dir.rglob('.*.part*'):  # of a killed process (files.whole)
                    path.unlink()
            self._run_all()

    def _lock(self, file: IO) -> None:
        try:
            # Unlike flock's, this lock is not inherited by loader workers, who outlive a killed parent a while.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise PlanError(f'{self.work_dir} is in use by another process; wait for it or give another '
                            'work_dir') from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            self.logger.warning(f'The file system of {self.work_dir} has no locks ({error.strerror}): start no second '
                                'process with this work_dir.')

    def _log_here(self) -> None:
        """Makes the plan's log the current one: a training leaves its own behind, and stages write to the current."""
        self.logger = MMLogger.get_instance(f'self_training {self.work_dir} {next(LOGS)}', file_mode='a',
                                            log_file=str(self.work_dir / 'self_training.log'))

    def _run_all(self) -> None:
        first, last = self._range()
        self._on_first_rank(self._check_input, last)
        for i, name in enumerate(self.names[:last + 1]):
            todo, paths = self._on_first_rank(self._decide, i, i < first)
            self.logger.info(f'Stage {i + 1} of {len(self.names)}, {name}: {todo}')
            if todo == DONE:
                continue
            if self.options['dry_run']:
                for j in range(i + 1, last + 1):
                    self.logger.info(f'Stage {j + 1} of {len(self.names)}, {self.names[j]}: after that')
                return
            self._keep_plan()
            self._run_one(i, paths)
        if not self.options['dry_run']:
            self._on_first_rank(self._tell_results, last)

    def _keep_plan(self) -> None:
        """Writes ``plan.py``: the config with what the command line has changed in it."""
        if get_rank() == 0 and not self.kept:
            with whole(self.work_dir / 'plan.py') as part:
                self.cfg.dump(part)
        self.kept = True

    def _tell_results(self, last: int) -> None:
        """Logs what became of each stage (rank 0 only)."""
        state, rows = self._state(), [('stage', 'status', 'seconds', 'last mIoU', 'best mIoU')]
        for name in self.names[:last + 1]:
            entry = state.get(name)
            scores = {}
            if isinstance(self.built[name], TrainStage) and 'metrics' in entry['outputs']:  # older plans have none
                scores = json.loads((self.work_dir / entry['outputs']['metrics']['path']).read_text())['mIoU']
            rows.append((name, entry['status'], str(round(entry['seconds'])) if 'seconds' in entry else '-',
                         *(f'{scores[which]:.2f}' if scores.get(which) is not None else '-'
                           for which in ('last', 'best'))))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [' '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        self.logger.info('\n'.join(['The plan:', *table]))

    @staticmethod
    def _on_first_rank(function: Callable, *args):
        """Rank 0 reads the disk and decides; all follow."""
        answer: list = [None]
        if get_rank() == 0:
            try:
                answer = [function(*args)]
            except Exception as error:  # every rank has to hear of it, or the others would wait for ever
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def _check_input(self, last: int) -> None:
        """Finds bad input of the stages that are to run before a day is spent on the first."""
        for i, name in enumerate(self.names[:last + 1]):
            try:
                check_stage(self.built[name], set(references(self.stages[i], self.names)), self.built)
            except ValueError as error:
                raise self._plan_error(name, error) from error

    def _plan_error(self, name: str, error: ValueError) -> PlanError:
        hint = self.cfg.get('data_hint') if isinstance(error, MissingImages) else None
        return PlanError(f'stage {name}: {error}' + (f'. How to make it: {hint}' if hint else ''))

    def _state(self) -> State:
        try:
            return State(self.work_dir / 'state.json')
        except ValueError as error:
            raise PlanError(str(error)) from error

    def _folder(self, i: int) -> Path:
        return self.work_dir / f'{i + 1:02d}_{self.names[i]}'

    def _build(self, i: int, paths: Dict[str, str]) -> Stage:
        options = {key: value for key, value in self.stages[i].items() if key != 'name'}
        options = replace_references(options, self.names, paths.__getitem__)
        stage = STAGES.get(options.pop('type'))
        try:
            return stage(**options, folder=self._folder(i), here=self.here, launcher=self.launcher,
                         env_cfg=self.env_cfg, plan_cfg=copy.deepcopy(self.plan_cfg))
        except (TypeError, ValueError, FileNotFoundError) as error:
            raise PlanError(f'stage {self.names[i]}: {error}') from error

    def _decide(self, i: int, must_be_done: bool) -> tuple:
        """Compares a stage with its entry in the state (rank 0 only).

        Returns:
            tuple[str, dict[str, str]]: What to do, and the path of each reference.
        """
        name, state = self.names[i], self._state()
        used = sorted(set(references(self.stages[i], self.names)))
        paths, digests = {}, {}
        for reference in used:
            source, artifact = reference.split(':')
            output = (state.get(source) or {}).get('outputs', {}).get(artifact)
            if output is None:
                raise PlanError(f'stage {name}: {reference!r} was not made; stage {source} made '
                                f'{sorted((state.get(source) or {}).get("outputs", {})) or "nothing yet"}')
            paths[reference], digests[reference] = str(self.work_dir / output['path']), output['digest']
        settings = self._settings(i, paths, digests)
        now, entry = fingerprint(settings), state.get(name)
        if entry and entry['fingerprint'] != now:
            changed = differences(entry['settings'], settings)
            told = '; '.join(f'{key}: {old!r} -> {new!r}' for key, (old, new) in list(changed.items())[:5])
            if entry['status'] == 'failed' and all(key.endswith(MASKS_SHA) for key in changed):
                self.logger.warning(f'Stage {name} failed, and labels were mended since ({told[:500]}).')
            else:
                self._empty(i, f'was made with other settings ({told[:500]})', state, must_be_done)
                entry = None
        elif entry is None and self._folder(i).is_dir() and any(self._folder(i).iterdir()):
            # The entry is written before the folder is made: it is of another plan, or state.json was lost.
            self._empty(i, 'holds files, but state.json knows nothing of them: move it away to keep them', state,
                        must_be_done)
        if entry and entry['status'] == 'done':
            broken = self._broken(entry['outputs'])
            if not broken:
                return DONE, paths
            told = ', '.join(broken.values())
            if not must_be_done and set(broken) <= set(STAGES.get(self.stages[i]['type']).mends):
                self.logger.warning(f'Stage {name}: {told}: it runs again.')
            else:
                self._empty(i, f'has lost what it made: {told}', state, must_be_done)
                entry = None
        if must_be_done:
            raise PlanError(f'self_training.start={self.options["start"]!r}, but stage {name} before it is not done')
        if not self.options['dry_run']:
            # Of a run before, only its time is left; one that failed is gone on with as one that was killed.
            state.set(name, status='running', fingerprint=now, settings=settings, started=time.ctime(),
                      seconds=(entry or {}).get('seconds', 0))
        return ('goes on' if entry else 'starts'), paths

    def _empty(self, i: int, reason: str, state: State, must_be_done: bool) -> None:
        """Deletes what a stage made and its entry, which only the user may allow.

        Raises:
            PlanError: If ``on_stale`` does not, or the stage is not to run.
        """
        if must_be_done:
            raise PlanError(f'self_training.start={self.options["start"]!r}, but stage {self.names[i]} before it '
                            f'{reason}')
        if self.options['on_stale'] != 'rerun':
            raise PlanError(f'stage {self.names[i]} in {self._folder(i)} {reason}. Set self_training.on_stale='
                            "'rerun' (--on-stale rerun) to redo it and what depends on it, which deletes its folder, "
                            'or give another work_dir')
        self.logger.warning(f'Stage {self.names[i]} {reason}: it is made anew.')
        if not self.options['dry_run']:
            try:
                shutil.rmtree(self._folder(i))
            except FileNotFoundError:  # there is nothing to delete
                pass
            except OSError as error:
                raise PlanError(f'stage {self.names[i]}: cannot delete {self._folder(i)}: {error}; what is left of it '
                                'would count as made by the new settings. Delete it by hand') from error
            state.forget(self.names[i])

    def _settings(self, i: int, paths: Dict[str, str], digests: Dict[str, str]) -> dict:
        """Settings of a stage in which inputs and images count by their content, wherever they lie."""
        by_path = {path: f'{reference}@{digests[reference]}' for reference, path in paths.items()}

        def by_content(node):
            if isinstance(node, dict):
                return {str(key): by_content(value) for key, value in node.items()}
            if isinstance(node, (list, tuple)):
                return [by_content(value) for value in node]
            return by_path.get(node, node) if isinstance(node, str) else node

        try:
            settings = by_images(self._build(i, paths).settings(), set(paths.values()))
        except ValueError as error:
            raise self._plan_error(self.names[i], error) from error
        return by_content(dict(settings, type=self.stages[i]['type']))

    def _broken(self, outputs: Dict[str, dict]) -> Dict[str, str]:
        """Outputs that are gone or have another content, and what is wrong with each."""
        found = {name: damage(self.work_dir / output['path'], output['digest']) for name, output in outputs.items()}
        return {name: wrong for name, wrong in found.items() if wrong}

    def _run_one(self, i: int, paths: Dict[str, str]) -> None:
        self._folder(i).mkdir(parents=True, exist_ok=True)
        begun = time.time()
        try:
            outputs: Dict[str, Path] = self._build(i, paths).run()
        except Exception as error:
            if get_rank() == 0:
                self._note(i, begun, status='failed', error=f'{type(error).__name__}: {error}')
            raise
        gc.collect()  # a Runner refers to itself: its weights and workers would stay on during the next stage
        if MMLogger.get_current_instance() is not self.logger:
            self._log_here()
        if get_rank() == 0:
            self._note(i, begun, status='done', outputs={
                name: dict(path=os.path.relpath(path.resolve(), self.work_dir), digest=digest(path))
                for name, path in outputs.items()})
        barrier()

    def _note(self, i: int, begun: float, **news) -> None:
        """Writes how a run of a stage has ended; ``seconds`` add up over its runs, but for those that were killed."""
        state = self._state()
        entry = state.get(self.names[i])
        seconds = round(entry.get('seconds', 0) + time.time() - begun, 1)
        state.set(self.names[i], **dict(entry, finished=time.ctime(), seconds=seconds, **news))
