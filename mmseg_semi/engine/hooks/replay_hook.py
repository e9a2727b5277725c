"""Makes the random numbers of a step depend on its iteration alone."""
from typing import Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_semi.datasets.replay import STEP, seed_all
from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class ReplayHook(Hook):
    """Seeds all generators from (seed, rank, iteration) before each step.

    What the step draws, such as dropout, is then the same after a stop and a resume, without a generator's state in the
    checkpoint. The samples are up to ``ReplaySampler``.
    """

    # Nobody draws before it.
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        """Seeds."""
        seed_all(STEP, runner.seed, runner.rank, runner.iter)
