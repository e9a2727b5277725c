"""Going on with a training that was stopped at any moment."""
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmseg_semi.engine.runner.state import usable_checkpoint
from mmseg_semi.registry import HOOKS


def go_on(cfg: Config) -> bool:
    """Lets a run go on from the newest whole checkpoint of its work dir.

    mmengine's own note of it, ``last_checkpoint``, may be cut off, name a file that is, or one of before the work dir
    was moved; and mmengine prefers ``load_from``, the start of the training, to what the training has saved since.

    Args:
        cfg (Config): Of the run, with ``work_dir``; changed.

    Returns:
        bool: Whether there is one; else the run begins anew.
    """
    last = usable_checkpoint(Path(cfg.work_dir))
    cfg.resume = last is not None
    if last:
        cfg.load_from = str(last)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='ResumeValidationHook')]
    return cfg.resume


def keep_two_checkpoints(cfg: Config) -> None:
    """mmengine deletes the old one before it saves the new one: killed in between, nothing would be left of one."""
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint.get('max_keep_ckpts') == 1:
        checkpoint.max_keep_ckpts = 2


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validates at the start of a resumed run, if it was stopped where a validation belongs.

    ``CheckpointHook`` saves before the validation of the same iteration, so a process that is killed in between would
    miss that validation, and perhaps the best checkpoint. Where it happened already, it only happens again.
    """

    # All others are ready by then.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Runs the validation."""
        loop = runner.train_loop
        now, end = ((runner.epoch, loop.max_epochs) if isinstance(loop, EpochBasedTrainLoop) else
                    (runner.iter, loop.max_iters))
        due = now % loop.val_interval == 0 or now == end
        if runner.val_loop is not None and now > 0 and now >= loop.val_begin and due:
            runner.val_loop.run()
