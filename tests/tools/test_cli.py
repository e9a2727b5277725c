"""The command line tools as a user calls them: in their own processes, on the CPU."""
import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

CONFIG = '''
default_scope = 'mmseg'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(32, 32)),
    backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm_cfg, norm_eval=False),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, concat_input=False, num_classes=2,
                     norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
dataset = dict(type='BaseSegDataset', data_root={root!r}, data_prefix=dict(img_path='images', seg_map_path='masks'),
               img_suffix='.png', seg_map_suffix='.png', reduce_zero_label=False,
               metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]]), pipeline=load)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                        sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                     logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                     visualization=dict(type='SegVisualizationHook', draw=False, interval=1))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
'''


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a data set of 4 images and a config."""
    root = tmp_path_factory.mktemp('project')
    rng = np.random.default_rng(0)
    for name in ('images', 'masks'):
        (root / name).mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / 'images' / f'{i}.png')
        Image.fromarray(rng.integers(0, 2, (32, 32), dtype=np.uint8)).save(root / 'masks' / f'{i}.png')
    (root / 'tiny.py').write_text(CONFIG.replace('{root!r}', repr(str(root))))
    return root


def run(command, cwd, env=None, fails=False):
    """Runs a tool from another directory; returns what it printed."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                   'PYTHONPATH': str(TOOLS.parent), **(env or {})}
    environment.pop('LOCAL_RANK', None)
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, text=True, timeout=300,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (result.returncode != 0) == fails, result.stdout[-4000:]
    return result.stdout


@pytest.mark.parametrize('tool', ['train', 'test', 'self_train'])
def test_the_rank_that_mpirun_tells_reaches_ddp(tool, monkeypatch):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [tool, 'config.py', 'model.pth'][:3 if tool == 'test' else 2])
    for variables, expected in ((dict(OMPI_COMM_WORLD_LOCAL_RANK='3'), '3'), (dict(LOCAL_RANK='2'), '2'), ({}, '0')):
        for name in ('OMPI_COMM_WORLD_LOCAL_RANK', 'LOCAL_RANK'):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        module.parse_args()
        assert os.environ['LOCAL_RANK'] == expected


def scores(work_dir):
    """The scores that tools/test.py left, as {name: percent}."""
    files = sorted(Path(work_dir).glob('*/*.json'))
    return json.loads(files[-1].read_text().splitlines()[-1])


@pytest.fixture(scope='module')
def trained(project):
    """The work dir of a run of 2 iterations; trained from another directory than the config's."""
    run([sys.executable, TOOLS / 'train.py', '../tiny.py', '--work-dir', project / 'run', '--cfg-options',
         'optim_wrapper.optimizer.lr=0.02', 'train_dataloader.batch_size=4'], project / 'images')
    return project / 'run'


def test_train_writes_checkpoint_and_config(trained):
    assert (trained / 'iter_2.pth').exists()
    cfg = Config.fromfile(trained / 'tiny.py')
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.model.backbone.norm_cfg.type == 'BN'
    assert cfg.launcher == 'none' and 'model_wrapper_cfg' not in cfg


def test_resume_continues(project, trained):
    printed = run([sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', trained, '--resume', '--cfg-options',
                   'train_cfg.max_iters=4'], project)
    assert re.search(r'resumed? .*iter_?\D*2', printed, re.IGNORECASE) or 'iter: 2' in printed
    assert re.search(r'Iter\(train\) *\[3/4\]', printed) and not re.search(r'Iter\(train\) *\[1/4\]', printed)
    assert (trained / 'iter_4.pth').exists()


def test_resume_after_a_kill_at_a_bad_moment(project, trained, tmp_path):
    """In the middle of a checkpoint, its note not yet written, before the validation that belonged to the one before.

    The folder is moved, and the config has weights to start from, which a new run takes and a resumed one does not.
    """
    (tmp_path / 'start.py').write_text(f"""
_base_ = {str(project / 'tiny.py')!r}
load_from = {str(trained / 'iter_2.pth')!r}
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
train_cfg = dict(val_interval=2)
""")
    command = [sys.executable, TOOLS / 'train.py', tmp_path / 'start.py', '--resume', '--work-dir']
    printed = run([*command, tmp_path / 'before', '--cfg-options', 'train_cfg.max_iters=3'], project)
    assert f'{tmp_path}/before holds no whole checkpoint to resume: training begins anew' in printed
    assert re.search(r'Iter\(train\) *\[1/3\]', printed)
    folder = (tmp_path / 'before').rename(tmp_path / 'after')
    assert {path.name for path in folder.glob('*.pth')} == {'iter_2.pth', 'iter_3.pth'}
    cut = folder / 'iter_3.pth'
    cut.write_bytes(cut.read_bytes()[:-1000])
    (folder / 'last_checkpoint').write_text('')
    printed = run([*command, folder, '--cfg-options', 'train_cfg.max_iters=4'], project)
    assert re.search(r'Iter\(val\).*mIoU.*Iter\(train\) *\[3/4\].*Iter\(val\).*mIoU', printed, re.S)
    assert not re.search(r'Iter\(train\) *\[[12]/4\]', printed) and (folder / 'iter_4.pth').exists()
    # A checkpoint on the command line is the one to resume.
    printed = run([*command, folder, '--cfg-options', 'train_cfg.max_iters=4', f'load_from={folder}/iter_3.pth'],
                  project)
    assert re.search(r'Iter\(train\) *\[4/4\]', printed) and not re.search(r'Iter\(train\) *\[3/4\]', printed)


@pytest.mark.slow
def test_test_scores_and_shows(project, trained):
    run([sys.executable, TOOLS / 'test.py', 'tiny.py', trained / 'iter_2.pth', '--work-dir', project / 'tested',
         '--show-dir', 'painted'], project)
    assert 0 <= scores(project / 'tested')['mIoU'] <= 100
    assert len(list((project / 'painted').glob('**/*.png'))) == 4


@pytest.mark.slow
def test_test_writes_predictions(project, trained):
    run([sys.executable, TOOLS / 'test.py', 'tiny.py', trained / 'iter_2.pth', '--work-dir', project / 'predicted',
         '--out', project / 'maps'], project)
    assert sorted(path.name for path in (project / 'maps').glob('*.png')) == ['0.png', '1.png', '2.png', '3.png']


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(project, tmp_path):
    """Same four images per step and statistics frozen: the average of two gradients is the gradient of both."""
    same = ['--cfg-options', 'model.backbone.norm_eval=True', 'model.backbone.norm_cfg.type=SyncBN',
            'model.decode_head.norm_cfg=None', 'model.decode_head.dropout_ratio=0',
            'train_dataloader.sampler.shuffle=False']
    printed = run(['bash', TOOLS / 'dist_train.sh', '../tiny.py', 2, '--work-dir', tmp_path / 'two', *same],
                  project / 'images')
    assert 'SyncBN settings of the config became BN' in printed
    cfg = Config.fromfile(tmp_path / 'two' / 'tiny.py')
    assert cfg.launcher == 'pytorch' and cfg.env_cfg.dist_cfg.backend == 'gloo'
    run([sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', tmp_path / 'one', *same,
         'train_dataloader.batch_size=4'], project)
    two, one = (torch.load(tmp_path / name / 'iter_2.pth', map_location='cpu', weights_only=False)['state_dict']
                for name in ('two', 'one'))
    torch.testing.assert_close(dict(two), dict(one))


@pytest.mark.slow
def test_two_processes_test_as_one(project, trained, tmp_path):
    run([sys.executable, TOOLS / 'test.py', 'tiny.py', trained / 'iter_2.pth', '--work-dir', tmp_path / 'one'], project)
    run(['bash', TOOLS / 'dist_test.sh', 'tiny.py', trained / 'iter_2.pth', 2, '--work-dir', tmp_path / 'two'], project)
    assert scores(tmp_path / 'two')['mIoU'] == scores(tmp_path / 'one')['mIoU']


@pytest.mark.slow
def test_slurm_scripts(project, trained, tmp_path):
    """srun and scontrol are stand-ins: the first notes its options and starts one task as slurm would."""
    stand_ins = tmp_path / 'bin'
    stand_ins.mkdir()
    (stand_ins / 'srun').write_text(
        '#!/usr/bin/env bash\necho "srun $*"\nwhile [[ $1 == -* ]]; do [ "$1" = -p ] && shift; shift; done\n'
        'SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=node exec "$@"\n')
    (stand_ins / 'scontrol').write_text('#!/usr/bin/env bash\necho 127.0.0.1\n')
    for path in stand_ins.iterdir():
        path.chmod(0o755)
    env = {'PATH': f'{stand_ins}:{os.environ["PATH"]}', 'GPUS': '16', 'SRUN_ARGS': '--quiet --no-kill'}
    printed = run(['bash', TOOLS / 'slurm_train.sh', 'gpu', 'job', 'tiny.py', '--work-dir', tmp_path / 'run'], project,
                  env)
    assert ('--gres=gpu:8 --ntasks=16 --ntasks-per-node=8 --cpus-per-task=5 --kill-on-bad-exit=1 --quiet --no-kill '
            in printed)
    assert (tmp_path / 'run' / 'iter_2.pth').exists()
    run(['bash', TOOLS / 'slurm_test.sh', 'gpu', 'job', 'tiny.py', tmp_path / 'run' / 'iter_2.pth', '--work-dir',
         tmp_path / 'tested'], project, env)
    assert 'mIoU' in scores(tmp_path / 'tested')


def test_mistakes_name_the_setting(project):
    printed = run([sys.executable, TOOLS / 'test.py', 'tiny.py', 'none.pth', '--tta'], project, fails=True)
    assert 'error: --tta needs tta_model and tta_pipeline in the config' in printed and 'Traceback' not in printed


def test_mistakes_before_training_are_one_line(project):
    printed = run([sys.executable, TOOLS / 'train.py', 'nowhere.py'], project, fails=True)
    assert 'nowhere.py' in printed.splitlines()[-1] and 'Traceback' not in printed
    # A folder that is not there is found when the loader is built, deep inside of mmengine.
    printed = run([sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', 'lost', '--cfg-options',
                   'train_dataloader.dataset.data_root=nowhere'], project, fails=True)
    assert 'error: ' in printed and 'nowhere' in printed and 'Traceback' not in printed
    assert 'Traceback' in (project / 'lost/traceback.txt').read_text()


def test_a_training_is_not_overwritten(project, tmp_path):
    """The same command again, or another project whose config has the same name."""
    command = [sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', tmp_path]
    run(command, project)
    weights = (tmp_path / 'iter_2.pth').read_bytes()
    printed = run(command, project, fails=True)
    assert f'error: {tmp_path}/iter_2.pth is of an earlier training' in printed and 'Traceback' not in printed
    assert (tmp_path / 'iter_2.pth').read_bytes() == weights
    assert '--resume goes on with it' in printed
    printed = run([*command, '--cfg-options', 'load_from=other.pth'], project, fails=True)  # --resume would resume it
    assert 'is of an earlier training' in printed and '--resume' not in printed
    run([*command, '--resume', '--cfg-options', 'train_cfg.max_iters=3'], project)
    for path in tmp_path.glob('iter_*.pth'):  # what is left of a process that was killed while it saved
        path.write_bytes(path.read_bytes()[:1000])
    run(command, project)


def test_mistakes_that_come_later_are_one_line(project, tmp_path):
    """A mask of validation that is wrong, found by a worker at the end; mixed precision without a GPU; Ctrl-C."""
    (tmp_path / 'wrong.py').write_text(f"""
_base_ = {str(project / 'tiny.py')!r}
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=1),
        dict(type='PackSegInputs')]
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=load))
train_cfg = dict(val_interval=1)
""")
    printed = run([sys.executable, TOOLS / 'train.py', tmp_path / 'wrong.py', '--work-dir', tmp_path / 'a'], project,
                  fails=True)
    assert re.search(r'^error: mask .*/masks/\d.png holds labels \[1\]', printed, re.M), printed
    assert 'Traceback' not in printed
    printed = run([sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', tmp_path / 'b', '--amp'], project,
                  fails=True)
    assert 'error: mixed precision (--amp, ' in printed and 'Traceback' not in printed
    (tmp_path / 'stop.py').write_text(f"""
_base_ = {str(project / 'tiny.py')!r}
custom_imports = dict(imports=['stopping'])
custom_hooks = [dict(type='Stopping')]
""")
    (tmp_path / 'stopping.py').write_text("""
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
@HOOKS.register_module()
class Stopping(Hook):
    def after_train_iter(self, *args, **kwargs):
        raise KeyboardInterrupt
""")
    printed = run([sys.executable, TOOLS / 'train.py', tmp_path / 'stop.py', '--work-dir', tmp_path / 'b'], project,
                  dict(PYTHONPATH=f'{TOOLS.parent}:{tmp_path}'), fails=True)
    assert printed.endswith('interrupted; the same command with --resume goes on from the last checkpoint\n')
    assert 'Traceback' not in printed


STACK = ('mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'mmseg_semi')
SCRIPTS = [path for path in sorted(TOOLS.rglob('*.py')) if "__name__ == '__main__'" in path.read_text()]


def packages(path, root):
    """Which of these a module imports, in order, also by the modules of the tool's folder ``root``."""
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module] if isinstance(node, ast.ImportFrom) else [])
        for name in names:
            folder = path.parent if isinstance(node, ast.ImportFrom) and node.level else root
            beside = folder / f'{(name or "__init__").replace(".", "/")}.py'
            if beside.is_file():
                yield from packages(beside, root)
            elif name and name.split('.')[0] in STACK:
                yield name.split('.')[0]


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_the_set_up_is_checked_before_its_packages_are_imported(path):
    """Else a missing or wrong package ends in the words of whoever meets it first."""
    found = list(packages(path, path.parent))
    # The converters of data sets take a progress bar from mmengine, and nothing else.
    light = path.parent.name == 'dataset_converters' and set(found) == {'mmengine'}
    assert not found or found[0] == 'mmseg_semi' or light, found


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_shell_scripts_say_how_to_use_them(script, tmp_path):
    assert 'usage:' in run(['bash', TOOLS / script, 'config.py'], tmp_path, fails=True)


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_same_options_as_mmseg(tool):
    theirs = Path(mmseg.__file__).parent / '.mim' / 'tools' / tool
    if not theirs.exists():
        pytest.skip('this mmseg was installed without its tools')
    pattern = re.compile(r"'(--[a-z_-]+)'")
    assert set(pattern.findall(theirs.read_text())) == set(pattern.findall((TOOLS / tool).read_text()))
