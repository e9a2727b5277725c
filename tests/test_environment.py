"""Which set-ups are refused, and that the commands in the messages are the ones of requirements/."""
import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from packaging.requirements import Requirement

from mmseg_semi import environment
from mmseg_semi.environment import check, diagnose

REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'

ONEDL = {
    'mmengine': {'onedl-mmengine': '0.10.12'},
    'mmcv': {'onedl-mmcv': '2.3.6'},
    'mmseg': {'onedl-mmsegmentation': '1.4.2'},
    'mmpretrain': {'onedl-mmpretrain': '1.3.6'}
}
OPENMMLAB = {
    'mmengine': {'mmengine': '0.10.7'},
    'mmcv': {'mmcv': '2.1.0'},
    'mmseg': {'mmsegmentation': '1.2.2'},
    'mmpretrain': {}
}
NOTHING = {name: {} for name in ONEDL}


def read_requirements(name):
    lines = (REQUIREMENTS / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def test_the_installed_set_up_is_accepted():
    check()


@pytest.mark.parametrize('found, has_ops', [
    (ONEDL, False),  # OneDL's mmseg works without compiled ops
    ({**ONEDL, 'mmpretrain': {}}, True),
    (OPENMMLAB, True),
    ({**OPENMMLAB, 'mmcv': {'source tree': 'unknown'}}, True),
    ({**OPENMMLAB, 'mmcv': {'mmcv': '2.0.0rc4'}}, True),
])
def test_working_set_ups(found, has_ops):
    assert diagnose(found, '2.1.0+cpu', has_ops) is None


@pytest.mark.parametrize('version', [None, '1.13.1', '2.0.1+cu118'])
def test_torch_missing_or_too_old(version):
    message = diagnose(ONEDL, version, True)
    assert (version or 'not installed') in message
    assert "install -U 'torch>=2.1'" in message


def test_no_stack():
    message = diagnose(NOTHING, '2.6.0', False)
    assert 'mmengine, mmcv and mmseg cannot be imported: no MMSegmentation stack is installed' in message
    assert message.endswith(environment._INSTALL_ONEDL)


@pytest.mark.parametrize('stack, family, other', [(ONEDL, 'onedl-mmsegmentation', 'mmsegmentation==1.2.2'),
                                                  (OPENMMLAB, 'mmsegmentation==1.2.2', 'onedl')])
def test_half_a_stack_is_completed_by_its_own_family(stack, family, other):
    message = diagnose({**stack, 'mmseg': {}}, '2.6.0', True)
    assert 'mmseg cannot be imported: found' in message
    for name in ('mmengine', 'mmcv'):
        (distribution, version), = stack[name].items()
        assert f'{distribution} {version}' in message
    assert family in message
    assert other not in message.split('To mend it')[1]


def test_both_stacks_at_once():
    both = {name: {**ONEDL[name], **OPENMMLAB[name]} for name in ONEDL}
    message = diagnose(both, '2.6.0', True)
    assert 'mmengine, mmcv and mmseg are provided twice' in message
    uninstall = message.split('uninstall -y ')[1].split(' && ')[0].split()
    assert set(uninstall) == {d for providers in both.values() for d in providers}
    assert environment._INSTALL_ONEDL in message


@pytest.mark.parametrize('version', ['1.7.2', '2.2.0', '2.0.0rc3'])
def test_mmcv_outside_the_range_of_mmsegmentation(version):
    message = diagnose({**OPENMMLAB, 'mmcv': {'mmcv': version}}, '2.6.0', True)
    assert 'mmcv>=2.0.0rc4,<2.2.0' in message
    assert f'mmcv {version}' in message
    assert 'mmcv==2.1.0' in message


def test_mmsegmentation_needs_the_compiled_ops():
    message = diagnose({**OPENMMLAB, 'mmcv': {'mmcv-lite': '2.1.0'}}, '2.6.0', False)
    assert 'mmcv-lite 2.1.0' in message
    assert 'uninstall -y mmcv-lite' in message
    assert 'MMCV_WITH_OPS=1' in message


def test_check_raises_the_diagnosis(monkeypatch):
    monkeypatch.setattr(environment, 'installed', lambda: NOTHING)
    with pytest.raises(ImportError, match='cannot be imported'):
        check()


def test_commands_agree_with_the_requirements():
    assert sorted(environment._ONEDL) == sorted(read_requirements('onedl'))
    for requirement in read_requirements('openmmlab'):
        assert requirement in environment._INSTALL_OPENMMLAB.split(), requirement
    assert f'torch>={environment.MIN_TORCH}' in read_requirements('runtime')


@pytest.mark.parametrize('constraints, extras', [('constraints', ['onedl']), ('constraints-openmmlab', ['openmmlab'])])
def test_pins_cover_and_satisfy_the_requirements(constraints, extras):
    pins = [Requirement(line) for line in read_requirements(constraints)]
    for requirement in map(Requirement, sum(map(read_requirements, ['runtime', 'demo', 'tests', *extras]), [])):
        for python in ('3.10', '3.11', '3.12', '3.13'):
            pinned = [pin for pin in pins if pin.name.lower().replace('_', '-') == requirement.name
                      and (pin.marker is None or pin.marker.evaluate({'python_version': python}))]
            assert len(pinned) == 1, f'{requirement.name} has {len(pinned)} pins for Python {python}'
            version = next(iter(pinned[0].specifier)).version
            assert requirement.specifier.contains(version), f'{pinned[0]} does not satisfy {requirement}'


class Tiny(BaseModel):
    """One weight; enough for a checkpoint."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return {'loss': (self.weight * inputs).sum()}


def test_own_checkpoints_load_in_safe_mode(tmp_path, monkeypatch):
    loader = dict(dataset=[{'inputs': torch.ones(2)}] * 4, batch_size=2, num_workers=0,
                  sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='default_collate'))
    runner = Runner(
        Tiny(), str(tmp_path), train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='PolyLR', by_epoch=False, end=4),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4)))
    # What a validation leaves behind: scores come from numpy.
    runner.message_hub.update_info('best_score', np.float64(61.5))
    runner.message_hub.update_scalar('val/mIoU', np.float32(61.5))
    runner.message_hub.update_scalar('val/count', np.int64(3))
    runner.train()

    safe, load = [], torch.load

    def watched(*args, **kwargs):
        safe.append(kwargs.get('weights_only') is not False)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', watched)
    checkpoint = CheckpointLoader.load_checkpoint(str(tmp_path / 'iter_4.pth'), map_location='cpu')
    assert safe == [True]
    assert checkpoint['message_hub']['runtime_info']['best_score'] == 61.5
    assert checkpoint['message_hub']['log_scalars']['train/loss'].data[0].shape == (4,)


class Evil:
    """Unpickling it would run a command."""

    def __reduce__(self):
        return os.system, ('true',)


class Reach:
    """Unpickling it would fetch an attribute of a class that checkpoints have no business with."""

    def __reduce__(self):
        return getattr, (torch.Tensor, 'numpy')


@pytest.mark.parametrize('content', [Evil(), Reach()])
def test_loading_stays_safe(tmp_path, content):
    torch.save({'state_dict': {}, 'x': content}, tmp_path / 'x.pth')
    with pytest.raises(UnpicklingError):
        torch.load(tmp_path / 'x.pth', weights_only=True)
