"""Small real parts that many tests share."""
import copy
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

# The same tests on every machine; some compare to the last digit, some fork after training. A GPU takes its number.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import pytest
import torch
from mmengine.config import ConfigDict

import mmseg_semi  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT / '../shared/data/camvid')).resolve()

TINY = dict(
    type='SemiEncoderDecoder',
    data_preprocessor=dict(
        type='SemiSegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True, size=(33, 33)),
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
        norm_cfg=dict(type='BN'), style='pytorch'),
    decode_head=dict(
        type='FCNHead', in_channels=64, in_index=3, channels=12, num_convs=1, concat_input=False, dropout_ratio=0,
        num_classes=4, norm_cfg=dict(type='BN'), align_corners=True, loss_decode=dict(type='ValidCrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, concat_input=False, dropout_ratio=0,
        num_classes=4, norm_cfg=dict(type='BN'), align_corners=True,
        loss_decode=dict(type='ValidCrossEntropyLoss', loss_weight=0.4)),
    labeler=dict(type='ThresholdLabeler', threshold=0.3),
    branches=[dict(augments=[dict(type='CutMix', prob=1.0)])],
    joint_forward=True,
    test_cfg=dict(mode='whole'))


@pytest.fixture(autouse=True)
def mmseg_scope(monkeypatch):
    from mmengine.registry import init_default_scope
    init_default_scope('mmseg')
    torch.manual_seed(0)
    # A runner formats its config with yapf six times, a second each, for nothing but its looks.
    for home in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # imported late in one stack, early in the other
        monkeypatch.setattr(f'{home}.FormatCode', lambda text, **_: (text, True), raising=False)


@pytest.fixture
def tiny_cfg():
    """Config of a four-class segmentor of 0.2 M parameters for crops of 33 x 33."""
    return ConfigDict(copy.deepcopy(TINY))


@pytest.fixture
def tiny_pcr_cfg(tiny_cfg):
    """The same as PCR."""
    tiny_cfg.update(type='PCR', prototype_head=dict(num_prototypes=2, grid_size=8))
    return tiny_cfg


@pytest.fixture
def make_batch():
    """Function that draws a collated batch: (n_l, n_u) images of 33 x 33, some of them smaller."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from mmseg_semi.datasets import semi_collate

    def make(n_l=2, n_u=2, seed=0, sizes=((33, 33), (33, 29)), num_classes=4, unlabeled_sizes=None):
        generator = torch.Generator().manual_seed(seed)
        samples = []
        for i in range(n_l + n_u):
            choice = sizes if i < n_l else unlabeled_sizes or sizes
            height, width = choice[i % len(choice)]
            sample = SegDataSample()
            if i < n_l:
                label = torch.randint(num_classes, (1, height, width), generator=generator)
                label[0, :2] = 255
                sample.gt_sem_seg = PixelData(data=label)
            image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
            samples.append(dict(inputs=image, data_samples=sample))
        return semi_collate(samples)

    return make


def pytest_runtest_setup(item):
    if item.get_closest_marker('camvid') and not CAMVID.is_dir():
        pytest.skip(f'no CamVid photographs in {CAMVID}; set CAMVID_ROOT')


def pytest_configure(config):
    """Has the tests start warm Pythons: one server for all processes of pytest-xdist."""
    if not hasattr(config, 'workerinput'):
        os.environ.pop('WARM_PYTHON_EXECUTABLE', None)
        spec = importlib.util.spec_from_file_location('warm_python', Path(__file__).with_name('warm_python.py'))
        warm_python = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(warm_python)
    if not hasattr(config, 'workerinput') and os.environ.get('WARM_PYTHON') != '0' and warm_python.possible():
        config.warm_folder = Path(tempfile.mkdtemp(prefix='warm_python_', dir='/tmp'))
        config.warm_server, python = warm_python.start(config.warm_folder)
        os.environ['WARM_PYTHON_EXECUTABLE'] = str(python)
    warm = os.environ.get('WARM_PYTHON_EXECUTABLE')
    if warm and (hasattr(config, 'workerinput') or not config.getoption('numprocesses', None)):
        multiprocessing.set_executable(sys.executable)
        os.environ['PATH'] = os.pathsep.join(
            [str(Path(warm).parent), str(Path(sys.executable).parent), os.environ['PATH']])
        sys.executable = warm
    # After torch.export, a process's first backward starts threads, and none of its forks can do one any more; it
    # starts none if another came before. Some tests fork this process.
    torch.ones((), requires_grad=True).backward()


def pytest_unconfigure(config):
    if hasattr(config, 'warm_server'):
        config.warm_server.kill()
        config.warm_server.wait()
        shutil.rmtree(config.warm_folder, ignore_errors=True)
