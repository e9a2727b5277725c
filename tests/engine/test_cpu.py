"""What becomes of a config on a machine without an accelerator."""
import gc
import socket

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed, nn

from mmseg_semi.engine import cpu
from mmseg_semi.engine.cpu import adapt


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    monkeypatch.setattr(cpu, 'get_device', lambda: 'cpu')
    for variables in [('MASTER_ADDR', 'MASTER_PORT'), *cpu._RANK_VARIABLES.values()]:
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)


def config(**kwargs):
    norm = dict(type='SyncBN', requires_grad=True)
    return Config(dict(
        model=dict(
            backbone=dict(norm_cfg=norm),
            heads=[dict(norm_cfg=dict(type='MMSyncBN')), dict(norm_cfg=dict(type='GN'))]),
        other=(dict(type=nn.SyncBatchNorm), 'SyncBN'), **kwargs))


def test_changes_nothing_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(cpu, 'get_device', lambda: 'cuda')
    cfg = config()
    adapt(cfg, 'pytorch')
    assert cfg.to_dict() == config().to_dict()
    assert not distributed.is_initialized()


def test_sync_bn_becomes_bn_everywhere(monkeypatch):
    messages = []
    monkeypatch.setattr(cpu, 'print_log', lambda message, **_: messages.append(message))
    cfg = config(sync_bn='torch')
    adapt(cfg)
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.model.heads] == ['BN', 'GN']
    assert cfg.other[0]['type'] == 'BN' and cfg.other[1] == 'SyncBN'
    assert cfg.sync_bn is None
    assert 'model_wrapper_cfg' not in cfg and 'env_cfg' not in cfg
    assert len(messages) == 1 and '4 SyncBN settings' in messages[0]


def test_joins_over_gloo_and_wraps_without_devices(monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_PORT=port).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    env_cfg = dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl', timeout=60))
    cfg = config(find_unused_parameters=True, env_cfg=env_cfg)
    try:
        adapt(cfg, 'pytorch')
        assert distributed.get_backend() == 'gloo'
        # As the runner does it.
        model = MODEL_WRAPPERS.build(cfg.model_wrapper_cfg, default_args=dict(module=Toy(), device_ids=[0]))
        assert model.find_unused_parameters and not model.broadcast_buffers and model.device_ids is None
        adapt(cfg, 'pytorch')  # a second call finds the group and leaves it alone
        # Before the group, or the wrapper ends the group's threads while it holds the interpreter: that hung once.
        del model
        gc.collect()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    assert cfg.env_cfg == dict(cudnn_benchmark=True, dist_cfg=dict(backend='gloo', timeout=60))


def test_keeps_the_wrapper_of_the_config(monkeypatch):
    monkeypatch.setattr(cpu, 'is_distributed', lambda: True)
    cfg = config(model_wrapper_cfg=dict(type='MMDistributedDataParallel', static_graph=True))
    adapt(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg == dict(type='MMDistributedDataParallel', static_graph=True, device_ids=None)


@pytest.mark.parametrize('launcher, missing', [('pytorch', 'RANK, WORLD_SIZE, LOCAL_RANK'), ('slurm', 'SLURM_PROCID'),
                                               ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_a_launcher_that_did_not_launch(launcher, missing):
    with pytest.raises(ValueError, match=f'{launcher}.*but {missing}.* not set'):
        adapt(config(), launcher)


def test_unknown_launcher():
    with pytest.raises(ValueError, match="none, pytorch, slurm, mpi, but got 'ray'"):
        adapt(config(), 'ray')


class Toy(BaseModel):

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        return inputs * self.weight
