"""Two gloo processes against one process on the union of their data, and the headline command on two."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
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
@pytest.mark.parametrize('case', ['plain', 'one class per rank', 'class without prototypes', 'nothing on rank 1',
                                  'css ori', 'css mix', 'css cross', 'css ori, nothing on rank 1',
                                  'css mix, nothing on rank 1', 'css cross, nothing on rank 1', 'css mix, contrast',
                                  'fixmatch', 'fixmatch, nothing on rank 1', 'maskmatch',
                                  'maskmatch, nothing on rank 1', 'cisc pair', 'cisc rectify',
                                  'cisc online', 'k-means, one class per rank', 'batch norm', 'own batch norm'])
def test_ranks_agree_and_equal_the_union(tmp_path, case):
    ranks = run(case, tmp_path / 'two', 2)
    for name, tensor in ranks[0]['state'].items():
        assert torch.equal(tensor, ranks[1]['state'][name]), name
    assert all(torch.isfinite(r['loss']).all() for r in ranks)
    if ', nothing on rank 1' in case:  # unequal divisors: the union is another objective; only no hang counts
        return
    if 'batch norm' in case:  # each rank normalizes by its own images, but there is one teacher and one student
        assert any('teacher.backbone' in name and 'running_var' in name for name in ranks[0]['state'])
        assert not torch.equal(ranks[0]['loss'], ranks[1]['loss'])
        return
    if case.startswith('k-means'):  # on the pixels that each rank has drawn
        assert ranks[0]['state']['prototype_head.class_valid'].tolist() == [True, True, False, False]
        assert ranks[0]['state']['prototype_head.bank'][:2].any(2).all()
        return
    union = run(case, tmp_path / 'one', 1)[0]
    assert all(loss > 0 for losses in union['unsup'][1:] for loss in losses)  # CSS begins without prototypes
    if case == 'nothing on rank 1':
        assert not any(ranks[1]['loss']) and all(ranks[0]['loss'])
        union['loss'] /= 2  # one divisor, not two
    if case == 'cisc online':
        assert ranks[0]['state']['guide_table'].any(1).all()  # the other rank's images too
    torch.testing.assert_close((ranks[0]['loss'] + ranks[1]['loss']) / 2, union['loss'], atol=1e-5, rtol=1e-5)
    for name, tensor in union['state'].items():
        torch.testing.assert_close(ranks[0]['state'][name], tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_the_headline_command_clusters_stops_and_resumes(tmp_path):
    """Every rank clusters its share of the labeled images, here three and two."""
    data, out = tmp_path / 'shapes', tmp_path / 'out'
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1',
               PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))

    def call(*command):
        done = subprocess.run([str(part) for part in command], cwd=ROOT, env=env, text=True, timeout=280,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    call(sys.executable, 'tools/dataset_converters/make_shapes.py', '--out', data, '--num-labeled', 5,
         '--num-unlabeled', 8, '--num-val', 2)
    options = [f'{loader}.dataset.{part}data_root={data}' for loader, part in
               (('train_dataloader', 'labeled.'), ('train_dataloader', 'unlabeled.'), ('val_dataloader', ''))]
    options += ['train_dataloader.batch_size=2', 'train_dataloader.sampler.counts=(1,1)', 'model.start_iter=2',
                'default_hooks.checkpoint.interval=3', 'train_cfg.val_interval=100', 'model.labeler.threshold=0']
    train = ['bash', 'tools/dist_train.sh', 'configs/pcr/pcr_tiny_shapes.py', 2, '--work-dir', out, '--cfg-options',
             *options]
    printed = call(*train, 'train_cfg.max_iters=3')
    assert 'Prototypes from k-means on the labeled images' in printed
    first = torch.load(out / 'iter_3.pth', map_location='cpu', weights_only=False)
    assert first['state_dict']['prototype_head.initialized'] and first['ema_teacher'] == {'updates': 1}
    printed = call(*train, 'train_cfg.max_iters=6', 'resume=True')
    assert 'Prototypes come from the checkpoint' in printed
    last = torch.load(out / 'iter_6.pth', map_location='cpu', weights_only=False)['state_dict']
    bank = last['prototype_head.bank']
    assert torch.isfinite(bank).all() and not torch.equal(bank, first['state_dict']['prototype_head.bank'])
