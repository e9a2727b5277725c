"""The plans of ST and ST++: the published numbers, their data, and the smoke plan as a whole."""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import RUNNERS
from PIL import Image

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'configs/self_training'
PLANS = sorted(path.stem for path in FOLDER.glob('*.py'))
# ST++ spec section 6, per data set; number of training images.
VOC = dict(total=10582, classes=21, epochs=80, lr=0.001, crop=321, base=400)
CITYSCAPES = dict(total=2975, classes=19, epochs=240, lr=0.004, crop=721, base=2048)
PUBLISHED = {
    **{f'voc_classic_{n}': (VOC, f'voc/classic/{n}', n) for n in (92, 183, 366, 732, 1464)},
    **{f'voc_blended_u2pl_{n}': (VOC, f'voc/blended_u2pl/{n}', n) for n in (662, 1323, 2646)},
    **{f'cityscapes_u2pl_{n}': (CITYSCAPES, f'cityscapes/u2pl/{n}', n) for n in (186, 372, 744)},
}
SETTINGS = [(method, name) for method in ('st', 'st_plusplus') for name in PUBLISHED]
pytestmark = pytest.mark.usefixtures('data_roots')


def load(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def runner(cfg, tmp_path):
    cfg.work_dir = str(tmp_path)
    return RUNNERS.build(cfg)


def test_there_are_plans():
    small = ['tiny_shapes', 'lite0_camvid_24', 'lite0_camvid_12']
    assert sorted(PLANS) == sorted(
        f'{method}_{name}' for method in ('st', 'st_plusplus') for name in [*small, *(f'r101_{n}' for n in PUBLISHED)])


@pytest.mark.parametrize('name', PLANS)
def test_plan_is_whole(name, tmp_path):
    """References, options and lengths of all stages; nothing is trained."""
    plan = runner(load(name), tmp_path)
    expected = ['sup', 'label', 'all'] if name.startswith('st_') and 'plusplus' not in name else [
        'sup', 'select', 'label_reliable', 'reliable', 'label_unreliable', 'all']
    assert plan.names == expected
    train = plan.stages[-1]['dataset']
    assert train['type'] == 'SelfTrainingDataset' and train['labeled'] == plan.plan_cfg['train_dataloader']['dataset']
    assert train['pseudo']['mask_dirs'] == [f'{stage}:masks' for stage in expected if stage.startswith('label')]
    assert 'StrongAugment' in [transform['type'] for transform in train['pseudo']['pipeline']]
    assert 'StrongAugment' not in str(train['labeled']['pipeline'])


def test_lengths_of_the_specification():
    """Section 2: VOC 1/16 at batch 16, 80 epochs."""
    cfg = load('st_plusplus_r101_voc_blended_u2pl_662')
    assert [cfg.epochs * cfg.epoch_steps[name] for name in ('sup', 'reliable', 'all')] == [3280, 51280, 99200]


@pytest.mark.parametrize('method, name', SETTINGS)
def test_published_lengths_and_lists(method, name, tmp_path):
    data, split, labeled = PUBLISHED[name]
    cfg = load(f'{method}_r101_{name}')
    unlabeled = data['total'] - labeled
    lists = dict(sup=labeled * (2 if labeled < 200 else 1))
    for stage, count in dict(reliable=unlabeled // 2, all=unlabeled).items():
        lists[stage] = labeled * math.ceil(count / labeled) + count
    if method == 'st':
        lists.pop('reliable')
    assert cfg.epochs == data['epochs'] and cfg.epoch_steps == {stage: n // 16 for stage, n in lists.items()}
    assert cfg.train_dataloader.dataset.ann_file == f'splits/{split}/labeled.txt'
    assert cfg.unlabeled.ann_file == f'splits/{split}/unlabeled.txt' and cfg.batch_size is None
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    plan = runner(cfg, tmp_path)
    for i, stage in enumerate(plan.names):
        if stage not in lists:
            continue
        train = plan._build(i, {f'{s}:{a}': 'x' for s in plan.names for a in ('masks', 'reliable', 'unreliable')})
        steps = cfg.epochs * cfg.epoch_steps[stage]
        assert train.cfg.train_cfg.max_iters == train.cfg.param_scheduler.end == steps
        assert train.cfg.train_cfg.val_interval == train.cfg.default_hooks.checkpoint.interval == cfg.epoch_steps[stage]
        assert train.exports == ([steps // 3, 2 * steps // 3] if (method, stage) == ('st_plusplus', 'sup') else [])


@pytest.mark.parametrize('name', ['voc_classic_92', 'cityscapes_u2pl_186'])
def test_published_network_and_rates(name):
    data = PUBLISHED[name][0]
    cfg = load(f'st_plusplus_r101_{name}')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head, backbone = model.decode_head, model.backbone
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='torchvision://resnet101')
    blocks = [getattr(backbone, f'layer{i}') for i in range(1, 5)]
    assert [layer[0].conv2.stride[0] for layer in blocks] == [1, 2, 1, 1]
    assert [(layer[0].conv2.dilation[0], layer[1].conv2.dilation[0]) for layer in blocks] == [
        (1, 1), (1, 1), (1, 2), (2, 4)]
    assert (head.dilations, head.channels, head.num_classes, len(head.classifier)) == (
        (1, 12, 24, 36), 256, data['classes'], 3)  # two convolutions and the dropout between them
    assert head.c1_bottleneck.conv.weight.shape[0] == 48 and head.align_corners and not model.with_auxiliary_head
    assert type(head.loss_decode).__name__ == 'ValidCrossEntropyLoss' and model.test_cfg == dict(mode='whole')
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups:
        for parameter in group['params']:
            lr = data['lr'] * (1 if names[id(parameter)].startswith('backbone.') else 10)
            assert (group['lr'], group['momentum'], group['weight_decay']) == (pytest.approx(lr), 0.9, 1e-4)
    assert cfg.param_scheduler.type == 'PolyLR' and (cfg.param_scheduler.power, cfg.param_scheduler.eta_min) == (0.9, 0)


@pytest.mark.parametrize('name', ['voc_classic_92', 'cityscapes_u2pl_186'])
def test_published_data(name, tmp_path):
    data = PUBLISHED[name][0]
    cfg = load(f'st_r101_{name}')
    crop = (data['crop'], ) * 2
    weak, strong = cfg.train_dataloader.dataset.pipeline, cfg.pseudo_pipeline
    assert strong[:-2] == weak[:-1] and [t['type'] for t in weak[3:]] == [
        'RandomResize', 'Pad', 'RandomCrop', 'RandomFlip', 'PackSegInputs']
    assert weak[3] == dict(type='RandomResize', scale=(data['base'], ) * 2, ratio_range=(0.5, 2.0), keep_ratio=True)
    assert (weak[4], weak[5].crop_size, weak[6].prob) == (
        dict(type='Pad', size=crop, pad_val=dict(img=0, seg=255)), crop, 0.5)
    assert strong[-2].augments == [
        dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
        dict(type='RandomGrayscale', prob=0.2), dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5),
        dict(type='Cutout', prob=0.5)]
    assert tuple(cfg.model.data_preprocessor['size']) == crop
    # On files in the layout of the data set, with masks as the labeling stage names them.
    unlabeled = DATASETS.build(dict(cfg.unlabeled, pipeline=[]))
    for i in range(len(unlabeled)):
        path = Path(unlabeled.get_data_info(i)['img_path'])
        mask = tmp_path / path.relative_to(unlabeled.data_prefix['img_path']).with_suffix('.png')
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(Image.open(path).size[::-1], 7, np.uint8)).save(mask)
    train = DATASETS.build(dict(
        type='SelfTrainingDataset', labeled=cfg.train_dataloader.dataset,
        pseudo=dict(cfg.unlabeled, type='PseudoLabeledDataset', mask_dirs=[str(tmp_path)], pipeline=strong)))
    assert len(train) == 3 * math.ceil(len(unlabeled) / 3) + len(unlabeled)
    assert train.metainfo['classes'] and len(train.metainfo['classes']) == data['classes']
    first, last = train[0], train[len(train) - 1]
    assert first['inputs'].shape == last['inputs'].shape == (3, *crop)
    labels = last['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, *crop) and set(labels.unique().tolist()) <= {7, 255}


@pytest.mark.slow
def test_smoke_plan(tmp_path):
    """The plan as it is, on fewer images; a second call does nothing."""
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')

    def call(*command):
        done = subprocess.run([sys.executable, '-W', 'ignore', *map(str, command)], cwd=tmp_path, env=env, text=True,
                              timeout=280, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    call(ROOT / 'tools/dataset_converters/make_shapes.py', '--out', 'data/shapes', '--num-labeled', 6,
         '--num-unlabeled', 24, '--num-val', 6)
    plan = FOLDER / 'st_plusplus_tiny_shapes.py'
    assert 'Stage 6 of 6, all: starts' in call(ROOT / 'tools/train.py', plan)
    folder = tmp_path / 'work_dirs/st_plusplus_tiny_shapes'
    scores = [json.loads(line)['score'] for line in (folder / '02_select/scores.jsonl').read_text().splitlines()]
    assert len(scores) == 24 and 0 < min(scores) < max(scores) <= 1
    lists = [(folder / f'02_select/{name}.txt').read_text().split() for name in ('reliable', 'unreliable')]
    assert [len(names) for names in lists] == [12, 12] and len({*lists[0], *lists[1]}) == 24
    state = json.loads((folder / 'state.json').read_text())['stages']
    assert [entry['status'] for entry in state.values()] == ['done'] * 6
    printed = call(ROOT / 'tools/self_train.py', plan)
    assert printed.count('done before, skipped') == 6 and 'Iter(train)' not in printed
