"""Training and testing on a machine without an accelerator, distributed or not.

mmengine's distributed path assumes CUDA in three places: it sets the CUDA device before it joins the process group,
hands device numbers to the model wrapper, and lets configs ask for SyncBN, which has no CPU kernel.
"""
import logging
import os
import subprocess
from datetime import timedelta
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from torch import distributed, nn

SYNC_BN = ('SyncBN', 'MMSyncBN', nn.SyncBatchNorm)

# Where each launcher leaves rank, number of processes and rank on the machine.
_RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK')
}


def adapt(cfg: Config, launcher: str = 'none') -> None:
    """Makes a config run on the CPU; to be called before the runner is built. Changes nothing on an accelerator.

    SyncBN becomes BN, so with several processes each one normalizes with the statistics of its own batch. For a
    distributed launcher it also joins the process group over gloo, since the runner leaves an existing group alone.

    Args:
        cfg (Config): The run's config, edited in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ValueError: If the launcher is unknown, or did not set its environment variables.
    """
    if get_device() != 'cpu':
        return
    if launcher != 'none':
        _adapt_launch(cfg, launcher)
    replaced = _replace_sync_bn(cfg)
    if cfg.get('sync_bn') is not None:
        cfg.sync_bn = None
        replaced += 1
    if replaced:
        print_log(f'No CUDA device: {replaced} SyncBN settings of the config became BN (statistics are per process).',
                  logger='current', level=logging.WARNING)


def _adapt_launch(cfg: Config, launcher: str) -> None:
    """Settles the model wrapper and joins the process group."""
    wrapper = dict(cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    # Unset, the runner fills it with the number of a CUDA device.
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    if not is_distributed():
        _join_process_group(launcher, cfg.env_cfg.dist_cfg.get('timeout'))


def _replace_sync_bn(node: Any) -> int:
    """Turns every ``dict(type='SyncBN', ...)`` below a config node into BN; returns how many there were."""
    if isinstance(node, (list, tuple)):
        return sum(map(_replace_sync_bn, node))
    if not isinstance(node, (dict, Config)):
        return 0
    here = node.get('type') in SYNC_BN
    if here:
        node['type'] = 'BN'
    return here + sum(_replace_sync_bn(value) for _, value in node.items())


def _join_process_group(launcher: str, timeout: Any) -> None:
    """Joins over gloo, with the launcher's environment variables translated to torch's."""
    if launcher not in _RANK_VARIABLES:
        raise ValueError(f'launcher must be one of none, {", ".join(_RANK_VARIABLES)}, but got {launcher!r}')
    variables = _RANK_VARIABLES[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise ValueError(f'launcher {launcher!r} needs the environment variables {", ".join(variables)}, '
                         f'but {", ".join(missing)} are not set; start it through tools/dist_train.sh, srun or mpirun')
    for name, variable in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), variables, strict=True):
        os.environ[name] = os.environ[variable]
    if launcher == 'slurm':
        hosts = subprocess.run(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
                               capture_output=True, text=True, check=True)
        os.environ.setdefault('MASTER_ADDR', hosts.stdout.split()[0])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    options = {} if timeout is None else {'timeout': timedelta(seconds=timeout)}
    distributed.init_process_group('gloo', **options)
