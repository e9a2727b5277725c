"""FiniteLossHook: a run that has diverged ends."""
import pytest
from mmengine.runner import Runner

from mmseg_semi.engine.hooks import FiniteLossHook


def test_a_diverged_run_ends_before_its_checkpoint(make_cfg, tmp_path):
    cfg = make_cfg(max_iters=6)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.finite_loss = dict(type='FiniteLossHook', interval=4)
    cfg.optim_wrapper.optimizer.lr = 1e38
    runner = Runner.from_cfg(cfg)
    with pytest.raises(FloatingPointError, match=r'at iteration 4: .*loss=nan.*decode\.loss_ce=nan.*checkpoints in '
                                                 r'.*run may be sound'):
        runner.train()
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} == {'iter_2.pth'}


def test_a_bad_interval():
    with pytest.raises(ValueError, match='interval must be at least 1, found 0'):
        FiniteLossHook(interval=0)
