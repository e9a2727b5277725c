"""FiniteLossHook: a run that has diverged ends."""
import pytest
from mmengine.runner import Runner

from mmseg_semi.engine.hooks import FiniteLossHook


@pytest.mark.parametrize('interval, saves, at, left', [
    (4, 2, 2, set()), (2, 3, 2, set()), (100, 4, 4, set()), (100, 100, 6, set()), (100, 1, 2, {'iter_1.pth'})])
def test_a_diverged_run_ends_before_its_checkpoint(make_cfg, tmp_path, interval, saves, at, left):
    """The first update spoils the weights, so the loss of iteration 2 shows it."""
    cfg = make_cfg(max_iters=6)
    cfg.default_hooks.checkpoint.interval = saves
    cfg.default_hooks.finite_loss = dict(type='FiniteLossHook', interval=interval)
    cfg.optim_wrapper.optimizer.lr = 1e38
    with pytest.raises(FloatingPointError, match=rf'at iteration {at}: .*loss=nan.*decode\.loss_ce=nan.* in .*run may'):
        Runner.from_cfg(cfg).train()
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} == left


def test_a_diverged_epoch_is_not_saved(make_cfg, tmp_path):
    cfg = make_cfg(**{
        'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=3, val_interval=3),
        'train_dataloader.sampler.infinite': False, 'log_processor.by_epoch': True,
        'default_hooks.checkpoint.by_epoch': True, 'default_hooks.checkpoint.interval': 1,
        'default_hooks.finite_loss': dict(type='FiniteLossHook', interval=100), 'optim_wrapper.optimizer.lr': 1e38})
    with pytest.raises(FloatingPointError, match='at iteration 4'):  # eight unlabeled images, two in each step
        Runner.from_cfg(cfg).train()
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_bad_interval():
    with pytest.raises(ValueError, match='interval must be at least 1, found 0'):
        FiniteLossHook(interval=0)
