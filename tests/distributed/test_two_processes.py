"""Two gloo processes against one process on the union of their data."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name('worker.py')


def run(case, out, world):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    processes = []
    for rank in range(world):
        env = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
                   LOCAL_RANK=str(rank))
        processes.append(subprocess.Popen([sys.executable, '-W', 'ignore', str(WORKER), case, str(out)], env=env,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [p.communicate(timeout=240)[0] for p in processes]  # a hang fails here
    assert all(p.returncode == 0 for p in processes), '\n'.join(outputs)
    return [torch.load(f'{out}.{rank}', weights_only=True) for rank in range(world)]


@pytest.mark.slow
@pytest.mark.parametrize('case', ['plain', 'one class per rank', 'class without prototypes', 'nothing on rank 1'])
def test_ranks_agree_and_equal_the_union(tmp_path, case):
    ranks = run(case, tmp_path / 'two', 2)
    for name, tensor in ranks[0]['state'].items():
        assert torch.equal(tensor, ranks[1]['state'][name]), name
    assert all(torch.isfinite(r['loss']).all() for r in ranks)
    if case == 'nothing on rank 1':  # unequal divisors: the union is another objective; all that counts is no hang
        return
    union = run(case, tmp_path / 'one', 1)[0]
    torch.testing.assert_close((ranks[0]['loss'] + ranks[1]['loss']) / 2, union['loss'], atol=1e-5, rtol=1e-5)
    for name, tensor in union['state'].items():
        torch.testing.assert_close(ranks[0]['state'][name], tensor, atol=1e-5, rtol=1e-4, msg=name)
