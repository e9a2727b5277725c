"""The measuring tools, each run briefly as a user calls it."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'analysis_tools'
PCR = 'configs/pcr/pcr_lite0_camvid_24.py'
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT / '../shared/data/camvid'))


def run(tool, *args, fails=False):
    """Runs a tool on the CPU; returns its last line, parsed, or what it printed if it should fail."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    result = subprocess.run([sys.executable, '-W', 'ignore', str(TOOLS / tool), *map(str, args)], cwd=ROOT, env=env,
                            text=True, timeout=600, capture_output=True)
    assert (result.returncode != 0) == fails, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stderr if fails else json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_step_cost():
    result = run('step_cost.py', PCR, '--steps', 2, '--json', '--cfg-options', 'crop_size=(64,64)',
                 'model.data_preprocessor.size=(64,64)', 'train_dataloader.sampler.counts=(2,1)')
    assert result['config'] == PCR and result['steps'] == 2 and result['device'].startswith('CPU')
    assert result['layout'] == 'channels_last'  # of the config's schedule
    assert 0.5 < result['ratio_of_cpu_time'] < 5 and result['ratio'] > 0
    stages = result['stages']
    assert {'preprocess', 'teacher forward', 'pseudo label', 'strong views', 'student forward', 'supervised loss',
            'unsupervised loss', 'extra losses', 'backward', 'optimizer', 'ema', 'other'} <= stages.keys()
    assert sum(row['share'] for row in stages.values()) == pytest.approx(1, abs=0.01)
    for name, row in stages.items():
        in_bare = name in ('teacher forward', 'student forward', 'backward', 'optimizer', 'other')
        assert (row['bare_ms'] > 0) == in_bare, name
    # Two labeled and one mixed image pass the student, one image the teacher.
    assert result['inputs'] == dict(teacher=[[1, 3, 64, 64]], student=[[3, 3, 64, 64]])


@pytest.mark.slow
def test_step_cost_of_images_with_guides():
    config = 'configs/cisc_r/cisc_r_online_tiny_shapes.py'
    result = run('step_cost.py', config, '--steps', 1, '--json', '--cfg-options', 'crop_size=(33,33)',
                 'model.data_preprocessor.size=(33,33)', 'train_dataloader.sampler.counts=(2,1)')
    assert result['ratio'] > 0 and result['stages']['extra losses']['ms'] > 0
    # Two pairs and one strong view pass the student, a weak view and its guide the teacher.
    assert result['inputs'] == dict(teacher=[[2, 3, 33, 33]], student=[[5, 3, 33, 33]])


@pytest.mark.parametrize('config, representations', [
    ('configs/css/css_mix_tiny_shapes.py', [2, 2]), ('configs/maskmatch/maskmatch_tiny_shapes.py', [0, 0])])
def test_bare_networks_of_step_cost_are_all_that_a_step_runs(config, representations, monkeypatch):
    """Three scales label for MaskMatch and its masked view passes alone; CSS's representations are network."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import step_cost
    import torch
    from mmengine.config import Config
    cfg = Config.fromfile(ROOT / config)
    cfg.merge_from_dict({'crop_size': (33, 33), 'model.data_preprocessor.size': (33, 33)})
    bench = step_cost.Bench(cfg, torch.device('cpu'))
    networks = [bench.model.teacher, bench.model]
    heads = [getattr(network, 'representation_head', None) for network in networks]
    runs = {}
    for name in ('step', 'bare'):
        counts = [0] * 4
        handles = []
        for i, module in enumerate([*(network.backbone for network in networks), *heads]):
            if module is not None:
                def count(*_, i=i, counts=counts):
                    counts[i] += 1
                handles.append(module.register_forward_hook(count))
        getattr(bench, name)()
        for handle in handles:
            handle.remove()
        runs[name] = counts
    assert runs['bare'] == runs['step'] and runs['bare'][2:] == representations
    assert runs['bare'][:2] == ([3, 2] if 'maskmatch' in config else [2, 2])  # CSS's teacher sees labeled images too


def test_step_cost_needs_a_method():
    message = run('step_cost.py', 'configs/supervised/supervised_lite0_camvid_24.py', fails=True)
    assert "step_cost needs a semi-supervised config; its model.type is 'EncoderDecoder'" in message


@pytest.mark.slow
def test_prototype_memory():
    result = run('prototype_memory.py', '--images', 2, '--crop', 257, '--channels', 256, '--json', '--channels-last')
    assert result['loss'] > 0 and result['loss_difference'] < 1e-5
    assert result['gradient_difference'] < 1e-4
    # The resized feature alone: 2 x 256 x 257 x 257 floats.
    assert result['reference_extra_mb'] > 0.9 * 2 * 256 * 257 * 257 * 4 / 1e6
    # It takes 5 copies of the 1024 picked pixels of each image; a copy of the feature would be 4 more.
    assert result['ours_extra_mb'] < 8 * 2 * 256 * 1024 * 4 / 1e6


@pytest.mark.slow
def test_ema_speed():
    result = run('ema_speed.py', '--depth', 18, '--repeats', 3, '--json')
    assert result['tensors'] > 100 and result['megabytes'] > 40
    for name in ('out_of_place', 'in_place'):
        assert result[f'ratio_{name}'] == pytest.approx(result[f'{name}_ms'] / result['ours_ms'], rel=0.01)
    assert result['repeats'] == 3 and result['ours_ms'] > 0


@pytest.mark.slow
def test_loader_cost():
    if not (CAMVID / 'img_dir').is_dir():
        pytest.skip(f'no CamVid in {CAMVID}; set CAMVID_ROOT')
    result = run('loader_cost.py', PCR, '--samples', 5, '--json')
    assert result['config'] == PCR and result['samples'] == 5
    assert result['labeled_ms'] > 0 and result['unlabeled_ms'] > 0
    assert result['batch_ms'] == pytest.approx(8 * result['labeled_ms'] + 8 * result['unlabeled_ms'], abs=0.1)
