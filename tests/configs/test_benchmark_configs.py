"""COCO and ADE20K: the published counts and protocol; and what all data sets of the papers have in common."""
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.datasets import COCO81Dataset
from mmseg_semi.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# common.md section 7: training images, labeled ones of each list. baselines.md section 5: passes, classes.
COCO = dict(total=118287, sizes=(232, 463, 925, 1849, 3697), epochs=30, classes=81, dataset='COCO81Dataset',
            train=('train2017', 'masks/train2017'), val=('val2017', 'masks/val2017'))
ADE20K = dict(total=20210, sizes=(316, 631, 1263, 2526, 5052, 10105), epochs=60, classes=150, dataset='ADE20KDataset',
              train=('images/training', 'annotations/training'), val=('images/validation', 'annotations/validation'))
DATA = dict(coco=COCO, ade20k=ADE20K)
METHODS = dict(coco=['fixmatch_ema', 'maskmatch', 'pcr'], ade20k=['fixmatch_ema'])
SETTINGS = [(method, kind, size) for kind, data in DATA.items() for size in data['sizes'] for method in METHODS[kind]]
FIRST = [(method, kind, DATA[kind]['sizes'][0]) for kind in DATA for method in [*METHODS[kind], 'supervised']]
BASES = sorted(path for name in ('voc', 'cityscapes', 'coco', 'ade20k')
               for path in (CONFIGS / '_base_' / 'datasets').glob(f'{name}*.py'))
WEAK = ['RandomScale', 'RandomCrop', 'RandomFlip', 'PackSegInputs']


@functools.cache
def load(method, kind, size):
    """Loads a config, which nobody may change, and makes mmseg's scope the default."""
    cfg = Config.fromfile(CONFIGS / method / f'{method}_r101_{kind}_{size}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def types(pipeline):
    return [transform['type'] for transform in pipeline]


def test_there_are_configs():
    found = {path.stem for kind in DATA for path in CONFIGS.glob(f'*/*_r101_{kind}_*.py')
             if path.parent.name != 'cisc_r'}  # test_cisc_configs.py
    assert found == {f'{method}_r101_{kind}_{size}' for kind, data in DATA.items() for size in data['sizes']
                     for method in [*METHODS[kind], 'supervised']}


@pytest.mark.parametrize('method, kind, size', SETTINGS)
def test_schedule_and_lists(method, kind, size):
    data, cfg = DATA[kind], load(method, kind, size)
    iterations = data['epochs'] * ((data['total'] - size) // 8)  # 8 unlabeled images a step, the rest of a pass dropped
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.end == iterations
    if (kind, size) == ('coco', 3697):
        assert iterations == 429690  # the total that baselines.md spells out
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
    assert cfg.model.get('start_iter') == ((data['total'] - size) // 8 if method == 'pcr' else 0)
    labeled, unlabeled = cfg.train_dataloader.dataset.labeled, cfg.train_dataloader.dataset.unlabeled
    assert labeled.ann_file == unlabeled.exclude == f'splits/{kind}/{size}/labeled.txt'
    assert not unlabeled.get('ann_file')
    counts = cfg.train_dataloader.sampler.counts
    assert 4 * counts[0] == 4 * counts[1] == 8 and cfg.train_dataloader.batch_size == sum(counts)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    twin = load('supervised', kind, size)
    assert twin.train_cfg.max_iters == iterations and twin.auto_scale_lr.base_batch_size == 8
    assert twin.train_dataloader.dataset == labeled and twin.train_dataloader.batch_size == counts[0]


@pytest.mark.parametrize('method, kind, size', FIRST)
def test_protocol(method, kind, size):
    data, cfg = DATA[kind], load(method, kind, size)
    labeled = cfg.train_dataloader.dataset
    labeled = labeled.get('labeled', labeled)
    assert types(labeled.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap', *WEAK]
    assert labeled.pipeline[2].num_classes == cfg.model.decode_head.num_classes == data['classes']
    scale, crop, flip, _ = labeled.pipeline[3:]
    assert (tuple(scale.ratio_range), scale.law, flip.prob) == ((0.5, 2.0), 'uniform', 0.5)
    assert tuple(crop.crop_size) == tuple(cfg.model.data_preprocessor['size']) == (513, 513)
    assert types(cfg.val_dataloader.dataset.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap',
                                                          'PackSegInputs']
    assert cfg.model.test_cfg == dict(mode='whole') and cfg.val_dataloader.batch_size == 1
    assert (labeled.type, cfg.val_dataloader.dataset.type) == (data['dataset'], ) * 2
    for dataset, part in [(labeled, 'train'), (cfg.val_dataloader.dataset, 'val')]:
        assert (dataset.data_prefix.img_path, dataset.data_prefix.seg_map_path) == data[part]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.004, 0.9, 1e-4)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.decode_head.lr_mult == 10
    assert cfg.model.decode_head.loss_decode.type == 'ValidCrossEntropyLoss'
    if method in ('fixmatch_ema', 'maskmatch'):
        labeler = cfg.model.labeler
        assert labeler.get('labeler', labeler).threshold == 0.95
    if method != 'supervised':
        unlabeled = cfg.train_dataloader.dataset.unlabeled
        assert unlabeled.pipeline == [labeled.pipeline[0], *labeled.pipeline[3:]]
        assert unlabeled.data_prefix.img_path == data['train'][0]
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.num_classes == data['classes']
    assert [layer[0].conv2.stride[0] for layer in (model.backbone.layer2, model.backbone.layer4)] == [2, 1]


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_what_mmseg_adds_and_the_papers_do_not(path):
    """common.md section 6: no cat_max_ratio, no photometric distortion, nothing resized for the test."""
    cfg = Config.fromfile(path)
    assert 'cat_max_ratio' not in cfg.pretty_text and 'PhotoMetricDistortion' not in cfg.pretty_text
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert not {'Resize', 'RandomResize'} & set(types(loader.dataset.pipeline))
        assert loader.batch_size == 1


def test_cityscapes_windows_are_those_of_unimatch():
    for method in ('fixmatch_ema', 'maskmatch'):
        cfg = load(method, 'cityscapes_u2pl', 186)
        assert cfg.model.test_cfg == dict(mode='slide', crop_size=(801, 801), stride=(534, 534), slide_average='prob',
                                          slide_windows='cut')


def test_classes_of_coco():
    classes, palette = COCO81Dataset.METAINFO['classes'], COCO81Dataset.METAINFO['palette']
    assert len(classes) == len(set(classes)) == len(palette) == len({tuple(color) for color in palette}) == 81
    from mmseg.datasets import PascalVOCDataset
    assert palette[:21] == PascalVOCDataset.METAINFO['palette']


# ---- they run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Both data sets as the converters leave them: 2 labeled, 3 unlabeled and 2 validation images."""
    rng, roots = np.random.default_rng(0), {}
    for kind, data in DATA.items():
        root = roots[f'{kind.upper()}_ROOT'] = tmp_path_factory.mktemp(kind)
        for part, count in (('train', 5), ('val', 2)):
            for i in range(count):
                for folder, suffix, array in [
                    (data[part][0], 'jpg', rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)),
                    (data[part][1], 'png', np.repeat(rng.integers(0, 81, (64, 1), dtype=np.uint8), 96, axis=1)),
                ]:
                    if folder == data['train'][1] and i > 1:
                        continue  # masks of unlabeled images need not exist
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(root / folder / f'{i:012d}.{suffix}')
        for size in data['sizes']:
            path = root / f'splits/{kind}/{size}/labeled.txt'
            path.parent.mkdir(parents=True)
            path.write_text('000000000000\n000000000001\n')
    return roots


@pytest.fixture
def make_runner(roots, tmp_path, monkeypatch):
    """Function that builds the runner of a config for two steps on crops of 65; the network is a ResNet-18 of 8."""
    for variable, root in roots.items():
        monkeypatch.setenv(variable, str(root))

    def make(method, kind, size):
        load.cache_clear()  # the data roots are read from the environment
        cfg = load(method, kind, size)
        cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
        cfg.model.decode_head.update(in_channels=64, c1_in_channels=8, channels=8, c1_channels=8)
        cfg.model.data_preprocessor['size'] = (65, 65)
        if method != 'supervised':
            cfg.model.start_iter = 0
            labeler = cfg.model.labeler
            labeler.get('labeler', labeler).threshold = 0.0  # which an untrained teacher reaches
            mask = cfg.model.branches[-1].augments[-1]
            if mask.type == 'PatchMask':
                mask.block_size = 16  # a crop of one cell is refused
            cfg.train_dataloader.dataset.unlabeled.pipeline[2].crop_size = (65, 65)
        labeled = cfg.train_dataloader.dataset
        labeled.get('labeled', labeled).pipeline[4].crop_size = (65, 65)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        cfg.train_cfg.max_iters = cfg.param_scheduler.end = 1
        cfg.default_hooks.logger.interval = 1
        cfg.work_dir, cfg.launcher, cfg.experiment_name = str(tmp_path), 'none', f'{method}_{kind}_{size}'
        load.cache_clear()  # it was changed
        return Runner.from_cfg(cfg)

    return make


@pytest.mark.parametrize('kind', DATA)
def test_labeled_and_unlabeled_images_are_apart(make_runner, kind):
    runner = make_runner('fixmatch_ema', kind, DATA[kind]['sizes'][1])
    labeled, unlabeled = runner.train_loop.dataloader.dataset.datasets
    names = [[Path(part.get_data_info(i)['img_path']).stem for i in range(len(part))] for part in (labeled, unlabeled)]
    assert names == [['000000000000', '000000000001'], ['000000000002', '000000000003', '000000000004']]
    assert not any('seg_map_path' in unlabeled.get_data_info(i) for i in range(len(unlabeled)))


@pytest.mark.slow
@pytest.mark.parametrize('method, kind, size', FIRST)
def test_trains_and_validates(make_runner, tmp_path, method, kind, size):
    runner = make_runner(method, kind, size)
    runner.train()
    metrics = runner.val()
    assert 0 <= metrics['mIoU'] <= 100 and ('student/mIoU' in metrics) == (method != 'supervised')
    logged = {key: runner.message_hub.get_scalar(key).current() for key in runner.message_hub.log_scalars}
    losses = {key: value for key, value in logged.items() if '.loss' in key}
    assert 'train/decode.loss_ce' in losses and all(np.isfinite(value) for value in losses.values())
    assert ('train/unsup_0.loss_ce' in losses) == (method != 'supervised')
    assert (tmp_path / 'iter_1.pth').exists()
