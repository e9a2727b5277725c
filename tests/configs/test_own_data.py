"""The folder that users copy: every file of it trains on three labeled images of two classes."""
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_semi.datasets import SemiDataset
from mmseg_semi.registry import DATASETS, RUNNERS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.stem for path in (ROOT / 'configs/own_data').glob('*.py') if path.stem != 'data')
METHODS = [name for name in FILES if name != 'st_plusplus']  # which trains in stages
EXACT = re.search(r'`exact.py` beside it:\n\n```python\n(.*?)```', (ROOT / 'docs/own_data.md').read_text(), re.S)[1]


@pytest.fixture
def mine(tmp_path):
    """A copy of the configs with root, sizes and steps edited, and a few images; returns the folder of the copy."""
    shutil.copytree(ROOT / 'configs/_base_', tmp_path / 'configs/_base_')
    shutil.copytree(ROOT / 'configs/own_data', tmp_path / 'configs/mine')
    (tmp_path / 'configs/mine/exact.py').write_text(EXACT)
    data = tmp_path / 'configs/mine/data.py'
    text = data.read_text()
    for old, new in (("'data/mine'", repr(str(tmp_path / 'data'))), ('(512, 512), (320, 320)', '(64, 64), (64, 64)'),
                     ('batch = (8, 8)', 'batch = (4, 4)'), ('steps = 4000', 'steps = 2')):
        assert text.count(old) == 1
        text = text.replace(old, new)
    data.write_text(text)
    rng = np.random.default_rng(0)
    for folder, count in (('labeled/images', 3), ('val/images', 1), ('unlabeled/x', 2)):
        (tmp_path / 'data' / folder).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(2, size=(4, 4)), np.ones((16, 16))).astype(np.uint8)
            image = (label[..., None] * 90 + rng.integers(60, size=(64, 64, 3))).astype(np.uint8)
            cv2.imwrite(str(tmp_path / 'data' / folder / f'{i}.jpg'), image)
            if 'images' in folder:
                masks = tmp_path / 'data' / folder.replace('images', 'masks')
                masks.mkdir(exist_ok=True)
                cv2.imwrite(str(masks / f'{i}.png'), label)
    return data.parent


def load(path):
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    cfg.work_dir = str(path.parents[2] / 'run')
    cfg.env_cfg.cudnn_benchmark = False
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    return cfg


def test_there_are_six_methods_in_short_files():
    assert FILES == ['css', 'fixmatch_ema', 'maskmatch', 'pcr', 'st_plusplus', 'supervised']
    for name in FILES:
        assert len((ROOT / f'configs/own_data/{name}.py').read_text().splitlines()) < 15


def test_settings_arrive(mine):
    text = (mine / 'data.py').read_text()
    (mine / 'data.py').write_text(text.replace("('background', 'foreground')", "('a', 'b', 'c')").replace(
        "['unlabeled']", "['unlabeled', dict(path='val', weight=2), 'labeled']").replace("'path'  #", "'content'  #"))
    shutil.copy(mine.parents[1] / 'data/val/images/0.jpg', mine.parents[1] / 'data/unlabeled/x/copy.jpg')
    shutil.copy(mine.parents[1] / 'data/unlabeled/x/0.jpg', mine.parents[1] / 'data/val/more.jpg')
    for name in METHODS:
        cfg = load(mine / f'{name}.py')
        assert cfg.model.decode_head.num_classes == 3 and cfg.model.data_preprocessor.size == (64, 64)
        assert cfg.param_scheduler.end == cfg.train_cfg.max_iters == 2
        assert cfg.train_dataloader.batch_size == (4 if name == 'supervised' else 8)
    with pytest.raises(ValueError, match='labeled: 6 found .* 6 of them left out'):  # nothing new in it
        DATASETS.build(cfg.unlabeled_set)
    cfg.unlabeled_set.folders.pop()
    pool = DATASETS.build(cfg.unlabeled_set)
    assert [Path(pool.get_data_info(i)['img_path']).name for i in range(len(pool))] == [
        '0.jpg', '1.jpg', 'more.jpg', 'more.jpg']


@pytest.mark.slow
@pytest.mark.parametrize('name', [*METHODS, 'exact'])
def test_trains(mine, name):
    cfg = load(mine / f'{name}.py')
    cfg.experiment_name = f'own_data_{name}'
    cfg.default_hooks.logger.interval = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    if name != 'supervised':
        assert isinstance(runner.train_dataloader.dataset, SemiDataset)
        assert runner.train_dataloader.dataset.cumulative_sizes == [3, 5]
    scalars = {key: history.data[0] for key, history in runner.message_hub.log_scalars.items()}
    assert len(scalars['train/loss']) == 2 and np.isfinite(scalars['train/loss']).all()
    assert len(scalars.get('train/monitor.kept', ())) == (name != 'supervised')  # from the second of two steps on
    assert 0 <= scalars['val/mIoU'][-1] <= 100


@pytest.mark.slow
def test_trains_in_stages(mine, tmp_path):
    """The folders of the template are what ST++ selects from, labels, and trains on."""
    text = (mine / 'data.py').read_text()
    (mine / 'data.py').write_text(text.replace('steps = 2', 'steps = 3'))
    cfg = load(mine / 'st_plusplus.py')
    cfg.default_hooks.logger.interval = 1
    plan = RUNNERS.build(cfg)
    plan.train()
    selected = [(tmp_path / f'run/02_select/{name}.txt').read_text().split() for name in ('reliable', 'unreliable')]
    assert sorted(sum(selected, [])) == ['x/0.jpg', 'x/1.jpg']
    for stage, names in (('03_label_reliable', selected[0]), ('05_label_unreliable', selected[1])):
        masks = [cv2.imread(str(tmp_path / f'run/{stage}/masks' / name.replace('.jpg', '.png')), 0) for name in names]
        assert masks and all(mask.shape == (64, 64) for mask in masks)
    assert (tmp_path / 'run/06_all/iter_3.pth').is_file()


def test_masks_are_made_at_the_size_of_validation(mine):
    """Photographs of 12 megapixels are neither labeled out of scale nor at twice their size."""
    text = (mine / 'data.py').read_text()
    (mine / 'data.py').write_text(re.sub(r'^scale, crop_size = .*$', 'scale, crop_size = (40, 30), (16, 16)', text,
                                         flags=re.MULTILINE))
    cfg = Config.fromfile(mine / 'st_plusplus.py')
    shapes = [tuple(DATASETS.build(part)[0]['inputs'].shape) for part in (cfg.unlabeled, cfg.val_dataloader.dataset)]
    assert shapes == [(3, 30, 30)] * 2


def test_a_test_set_is_kept_out_of_the_unlabeled_pool(mine):
    path = mine / 'data.py'
    path.write_text(path.read_text().replace('test = None', "test = dict(images='test/i', masks='test/m')"))
    cfg = Config.fromfile(path)
    prefix = dict(img_path='test/i', seg_map_path='test/m')
    assert cfg.test_dataloader.dataset.data_prefix == prefix and cfg.val_dataloader.dataset.data_prefix != prefix
    assert prefix in [one.data_prefix for one in cfg.train_dataloader.dataset.unlabeled.exclude_sets]
