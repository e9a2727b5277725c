"""The configs: every one builds, and those of the papers hold the published numbers."""
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.models import FCNHead
from PIL import Image

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
LEAFS = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/*.py')
               if path.parent.name != '_base_' and path.name != 'data.py')  # of own_data: the base of that folder
R101 = [leaf for leaf in LEAFS if leaf.startswith(('pcr/', 'supervised/')) and '_r101_' in leaf
        and not any(name in leaf for name in ('_coco_', '_ade20k_'))]  # test_benchmark_configs.py

BUILT = set()  # what test_model_and_optimizer_build has built

# PCR spec section 7, per data set.
VOC = dict(
    num_classes=21, crop=513, lr_backbone=0.001, lr_head=0.01, weight_decay=1e-4, epochs=80, tau=0.8, prototypes=4,
    test=dict(mode='whole'))
CITYSCAPES = dict(
    num_classes=19, crop=769, lr_backbone=0.01, lr_head=0.01, weight_decay=5e-4, epochs=200, tau=0.65, prototypes=3,
    test=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
# Spec section 7: config name -> data set, lists, unlabeled images (total minus labeled), iterations.
BLENDED = {662: (9920, 49600), 1323: (9259, 46320), 2646: (7936, 39680), 5291: (5291, 26480)}
PUBLISHED = {
    'voc': (VOC, 'voc/blended_u2pl/662', 9920, 49600),
    'voc_classic_92': (VOC, 'voc/classic/92', 10490, 52480),
    'voc_classic_183': (VOC, 'voc/classic/183', 10399, 52000),
    'voc_classic_366': (VOC, 'voc/classic/366', 10216, 51040),
    'voc_classic_732': (VOC, 'voc/classic/732', 9850, 49280),
    'voc_classic_1464': (VOC, 'voc/classic/1464', 9118, 45600),
    **{f'voc_blended_{family}_{n}': (VOC, f'voc/blended_{family}/{n}', *numbers)
       for family in ('u2pl', 'cps') for n, numbers in BLENDED.items()},
    'cityscapes_u2pl_186': (CITYSCAPES, 'cityscapes/u2pl/186', 2789, 34800),
    'cityscapes_u2pl_372': (CITYSCAPES, 'cityscapes/u2pl/372', 2603, 32600),
    'cityscapes_u2pl_744': (CITYSCAPES, 'cityscapes/u2pl/744', 2231, 27800),
    'cityscapes_u2pl_1488': (CITYSCAPES, 'cityscapes/u2pl/1488', 1487, 18600),
}
GPUS = 4
WEAK = ['RandomScale', 'RandomCrop', 'RandomFlip']
pytestmark = pytest.mark.usefixtures('data_roots')


def load(leaf):
    """Loads a config and makes mmseg's scope the default."""
    cfg = Config.fromfile(CONFIGS / leaf)
    init_default_scope(cfg.default_scope)
    return cfg


def pcr(name):
    return load(f'pcr/pcr_r101_{name}.py')


def supervised(name):
    return load(f'supervised/supervised_r101_{name}.py')


def outline(cfg):
    """The model with shapes but no memory, so that a ResNet-101 costs nothing."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def rates(cfg):
    """Learning rate, weight decay and momentum of each trained parameter, by name."""
    model = outline(cfg)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.SGD
    found = [(names[id(p)], (g['lr'], g['weight_decay'], g['momentum'], g['nesterov']))
             for g in optimizer.param_groups for p in g['params']]
    assert len(found) == len(dict(found))
    assert dict(found).keys() == {name for name in names.values() if not name.startswith('teacher.')}
    return dict(found)


def types(pipeline):
    return [transform['type'] for transform in pipeline]


# ---- every config -----------------------------------------------------------------------------------------------


def test_there_are_configs():
    assert {f'{folder}/{folder}_r101_{name}.py' for folder in ('pcr', 'supervised') for name in PUBLISHED} == set(R101)


# The template spells out what its user may want to change.
@pytest.mark.parametrize('leaf', [leaf for leaf in LEAFS if leaf != 'own_data/data.py'])
def test_leaf_is_short(leaf):
    assert len((CONFIGS / leaf).read_text().splitlines()) < 15


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.py')), ids=lambda path: path.stem)
def test_no_path_of_one_stack_only(path):
    assert 'mmseg::' not in path.read_text()


# Those of swap/ are built by test_swap_matrix.py; transformers read numbers that the meta device does not have.
@pytest.mark.parametrize('leaf', [leaf for leaf in LEAFS if not leaf.startswith('swap/')])
def test_model_and_optimizer_build(leaf):
    """Leafs that differ only in their data, or in a number of iterations, are built once."""
    cfg = load(leaf)
    parts = json.dumps([cfg.model.to_dict(), cfg.optim_wrapper.to_dict()], sort_keys=True, default=str)
    parts = re.sub(r'"\w*_iters?": \d+', '', parts)
    if parts in BUILT:
        return
    model = outline(cfg)
    assert model.num_classes == cfg.model.decode_head.num_classes
    build_optim_wrapper(model, cfg.optim_wrapper)
    BUILT.add(parts)


@pytest.mark.parametrize('leaf', [
    pytest.param(leaf, marks=() if leaf.endswith(('r101_voc.py', '_186.py')) else pytest.mark.slow) for leaf in R101
])
def test_runner_builds(leaf, tmp_path):
    """Hooks, loops, lists and data as the config names them; only the network is cut down."""
    cfg = load(leaf)
    narrow(cfg.model)
    cfg.work_dir, cfg.launcher, cfg.experiment_name = str(tmp_path), 'none', leaf
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    assert {type(hook).__name__ for hook in runner.hooks} >= {hook['type'] for hook in cfg.get('custom_hooks', [])}
    assert runner.train_loop.max_iters == cfg.train_cfg.max_iters
    assert len(runner.val_loop.dataloader) == len(runner.test_loop.dataloader) == 2
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    scheduler, = runner.build_param_scheduler(cfg.param_scheduler)
    assert scheduler.end == cfg.train_cfg.max_iters
    if leaf.startswith('pcr/'):
        for hook in runner.hooks:
            if type(hook).__name__ in ('EMATeacherHook', 'PrototypeInitHook'):
                hook.before_train(runner)
        # Which files, too: labels of the labeled images only, none of them unlabeled.
        labeled, unlabeled = runner.train_loop.dataloader.dataset.datasets
        infos = [[d.get_data_info(i) for i in range(len(d))] for d in (labeled, unlabeled)]
        assert all(Path(info['seg_map_path']).is_file() for info in infos[0])
        assert not any('seg_map_path' in info for info in infos[1])
        assert not {info['img_path'] for info in infos[0]} & {info['img_path'] for info in infos[1]}


def narrow(model):
    """A ResNet-18 of 8 channels in place of the ResNet-101."""
    model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
    model.decode_head.update(in_channels=64, c1_in_channels=8, channels=8, c1_channels=8)
    if model.get('auxiliary_head'):
        model.auxiliary_head.update(in_channels=32, channels=8)


# ---- the published numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_schedule(name):
    data, _, unlabeled, iterations = PUBLISHED[name]
    epoch = math.ceil(unlabeled / 8) // 2  # 8 GPUs of 2 unlabeled images, last incomplete batch dropped
    assert data['epochs'] * epoch == iterations
    cfg = pcr(name)
    assert cfg.train_cfg.type == 'IterBasedTrainLoop' and cfg.train_cfg.max_iters == iterations
    assert cfg.model.start_iter == epoch
    assert cfg.param_scheduler == dict(
        type='PolyLR', power=0.9, eta_min=0, begin=0, end=iterations, by_epoch=False)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.save_best, checkpoint.by_epoch) == ('mIoU', False)
    assert checkpoint.interval == cfg.train_cfg.val_interval and checkpoint.max_keep_ckpts == 2


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_data(name):
    data, split, _, _ = PUBLISHED[name]
    cfg = pcr(name)
    loader, crop = cfg.train_dataloader, (data['crop'], ) * 2
    counts = tuple(loader.sampler.counts)
    assert [GPUS * count for count in counts] == [16, 16] and loader.batch_size == sum(counts)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=GPUS * loader.batch_size)
    labeled, unlabeled = loader.dataset.labeled, loader.dataset.unlabeled
    assert (labeled.ann_file, unlabeled.ann_file) == (f'splits/{split}/labeled.txt', f'splits/{split}/unlabeled.txt')
    expected = ('SegmentationClassAug', 'SegmentationClass') if data is VOC else ('gtFine/train', 'gtFine/val')
    assert (labeled.data_prefix.seg_map_path, cfg.val_dataloader.dataset.data_prefix.seg_map_path) == expected
    assert types(labeled.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap', *WEAK, 'PackSegInputs']
    assert types(unlabeled.pipeline) == ['LoadImageFromFile', *WEAK, 'PackSegInputs']
    assert labeled.pipeline[3:] == unlabeled.pipeline[1:]
    scale, cropping, flip, _ = unlabeled.pipeline[1:]
    assert (tuple(scale.ratio_range), scale.law, flip.prob) == ((0.5, 2.0), 'halves', 0.5)
    assert tuple(cropping.crop_size) == crop and 'cat_max_ratio' not in cropping
    assert labeled.pipeline[2].num_classes == data['num_classes']
    assert types(cfg.val_dataloader.dataset.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap',
                                                          'PackSegInputs']
    assert cfg.val_dataloader.batch_size == 1
    assert cfg.model.test_cfg == data['test']
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.type == 'SemiSegDataPreProcessor' and tuple(preprocessor['size']) == crop
    assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb is True and preprocessor.seg_pad_val == 255


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_method(name):
    data = PUBLISHED[name][0]
    cfg = pcr(name)
    model = outline(cfg)
    assert model.labeler.threshold == data['tau']
    head = model.prototype_head
    assert (head.num_classes, head.num_prototypes, head.channels) == (data['num_classes'], data['prototypes'], 512)
    assert (head.temperature, head.momentum, head.grid_size, head.loss_weight) == (0.1, 0.99, 32, 1.0)
    branch, = model.branches
    cutmix, = branch.augments
    assert (type(cutmix).__name__, cutmix.prob, cutmix.box, cutmix.per, cutmix.partner) == (
        'CutMix', 0.5, 'half_width', 'batch', 'next')
    assert branch.loss_weight == 1.0 and model.joint_forward and model.predict_with == 'linear'
    assert model.eval_with == 'both'
    hooks = {hook.pop('type'): hook for hook in cfg.custom_hooks}
    assert hooks['EMATeacherHook'] == dict(decay=0.99, buffers='copy') and 'PrototypeInitHook' in hooks


@pytest.mark.parametrize('load_config', [pcr, supervised])
@pytest.mark.parametrize('name', ['voc', 'cityscapes_u2pl_186'])
def test_published_network(name, load_config):
    data, cfg = PUBLISHED[name][0], load_config(name)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='open-mmlab://resnet101_v1c')
    model = outline(cfg)
    blocks = [getattr(model.backbone, f'layer{i}') for i in range(1, 5)]
    assert [len(layer) for layer in blocks] == [3, 4, 23, 3]
    assert [[block.conv2.stride[0] for block in layer][0] for layer in blocks] == [1, 2, 1, 1]
    assert [block.conv2.dilation[0] for block in blocks[2]] == [1] + [2] * 22
    assert [block.conv2.dilation[0] for block in blocks[3]] == [4, 8, 16]
    stem = [m.out_channels for m in model.backbone.stem if isinstance(m, torch.nn.Conv2d)]
    assert stem == [32, 32, 64]  # the public weights; U2PL: 64, 64, 128
    head = model.decode_head
    assert type(head).__name__ == 'DeepLabV3PlusHead' and head.align_corners and head.dropout_ratio == 0.1
    assert (head.in_channels, head.channels, head.dilations) == (2048, 256, (1, 12, 24, 36))
    assert head.conv_seg.weight.shape == (data['num_classes'], 256, 1, 1)
    heads = [head]
    if data is CITYSCAPES:
        aux = model.auxiliary_head
        assert type(aux) is FCNHead and aux.align_corners and aux.dropout_ratio == 0.1 and len(aux.convs) == 1
        assert aux.convs[0].conv.weight.shape == (256, 1024, 3, 3) and not aux.concat_input and aux.in_index == 2
        heads.append(aux)
    else:
        assert not model.with_auxiliary_head
    for part, weight in zip(heads, (1.0, 0.4), strict=False):
        loss = part.loss_decode
        assert type(loss).__name__ == 'OHEMCrossEntropyLoss' and loss.thresh == 0.7 and loss.loss_weight == weight
        labeled_per_gpu = 16 // GPUS
        assert loss.min_kept == 100000 * labeled_per_gpu // 2
    norms = [m for m in model.modules() if 'BatchNorm' in type(m).__name__]
    assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)


@pytest.mark.parametrize('load_config', [pcr, supervised])
@pytest.mark.parametrize('name', ['voc', 'cityscapes_u2pl_186'])
def test_published_rates(name, load_config):
    data = PUBLISHED[name][0]
    for parameter, found in rates(load_config(name)).items():
        lr = data['lr_backbone' if parameter.startswith('backbone.') else 'lr_head']
        assert found == (pytest.approx(lr), data['weight_decay'], 0.9, False), parameter


def test_no_two_settings_share_their_lists():
    lists = {}
    for name in PUBLISHED:
        dataset = pcr(name).train_dataloader.dataset
        lists.setdefault(dataset.labeled.ann_file, []).append(name)
        lists.setdefault(dataset.unlabeled.ann_file, []).append(name)
    shared = {tuple(names) for names in lists.values() if len(names) > 1}
    assert shared == {('voc', 'voc_blended_u2pl_662')}  # the headline and its full name


@pytest.mark.parametrize('load_config', [pcr, supervised])
def test_the_headline_has_two_names(load_config):
    assert load_config('voc').to_dict() == load_config('voc_blended_u2pl_662').to_dict()


@pytest.mark.parametrize('name', PUBLISHED)
def test_supervised_twin(name):
    semi, plain = pcr(name), supervised(name)
    assert plain.model.type == 'EncoderDecoder' and plain.model.data_preprocessor.type == 'SegDataPreProcessor'
    for key in ('backbone', 'decode_head', 'auxiliary_head', 'test_cfg'):
        assert plain.model.get(key) == semi.model.get(key), key
    assert {k: v for k, v in plain.model.data_preprocessor.items() if k != 'type'} == {
        k: v for k, v in semi.model.data_preprocessor.items() if k != 'type'}
    assert plain.train_dataloader.dataset == semi.train_dataloader.dataset.labeled
    assert plain.train_dataloader.batch_size == semi.train_dataloader.sampler.counts[0]
    assert plain.auto_scale_lr == dict(enable=False, base_batch_size=GPUS * plain.train_dataloader.batch_size)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_dataloader', 'default_hooks', 'randomness'):
        assert plain[key] == semi[key], key
    assert not plain.get('custom_hooks')


# ---- they run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_headline_network_in_full():
    cfg = pcr('voc')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        features = model.extract_feat(torch.zeros(1, 3, 65, 65))
        logits = model.decode_head(features)
    assert [tuple(f.shape[1:]) for f in features] == [(256, 17, 17), (512, 9, 9), (1024, 9, 9), (2048, 9, 9)]
    assert logits.shape == (1, 21, 17, 17)
    assert model.tap.pop().shape == (1, 512, 17, 17)


SEMI = [
    'model.start_iter=1', 'train_dataloader.sampler.counts=(2,2)', 'train_dataloader.batch_size=4',
    'train_dataloader.dataset.labeled.pipeline.4.crop_size=(65,65)',
    'train_dataloader.dataset.unlabeled.pipeline.2.crop_size=(65,65)', 'model.labeler.threshold=0.0'
]
PLAIN = ['train_dataloader.batch_size=2', 'train_dataloader.dataset.pipeline.4.crop_size=(65,65)']
WINDOWS = [
    'model.auxiliary_head.in_channels=32', 'model.auxiliary_head.channels=8', 'model.test_cfg.crop_size=(65,65)',
    'model.test_cfg.stride=(43,43)'
]


@pytest.mark.slow
@pytest.mark.parametrize('leaf, options, num_classes', [
    ('pcr/pcr_r101_voc.py', SEMI, 21),
    ('pcr/pcr_r101_cityscapes_u2pl_186.py', SEMI + WINDOWS, 19),
    ('supervised/supervised_r101_voc.py', PLAIN, 21),
    ('supervised/supervised_r101_cityscapes_u2pl_186.py', PLAIN + WINDOWS, 19),
])
def test_trains_and_validates(leaf, options, num_classes, train_two_steps):
    """A labeled-only step, a semi-supervised one and a validation, by the command line."""
    first, second, validation, state = train_two_steps(leaf, options)
    is_semi = leaf.startswith('pcr/')
    expected = {'decode.loss_ohem'}
    if num_classes == 19:
        expected.add('aux.loss_ohem')
    prototypes = {'proto_labeled.loss_ce', 'proto_unlabeled.loss_ce'}
    assert {key for key in first if '.loss' in key} == expected | (prototypes if is_semi else set())
    assert {key for key in second if '.loss' in key} == expected | (
        prototypes | {'unsup_0.loss_ce'} if is_semi else set())
    assert all(np.isfinite(second[key]) and second[key] > 0 for key in second if '.loss' in key)
    assert {'mIoU', *(['student/mIoU'] if is_semi else [])} <= validation.keys()
    if is_semi:
        assert state['prototype_head.initialized']
        assert state['prototype_head.bank'].shape == (num_classes, 4 if num_classes == 21 else 3, 16)
    else:
        assert not any(key.startswith(('teacher.', 'prototype_head.')) for key in state)


@pytest.mark.camvid
@pytest.mark.parametrize('labels', [24, 12])
@pytest.mark.parametrize('stem', [leaf[:-len('_24.py')] for leaf in LEAFS if leaf.endswith('_lite0_camvid_24.py')])
def test_camvid_class_weights_follow_enets_rule(stem, labels):
    """1 / ln(1.02 + share of the pixels), over the labels that the config may see, on both losses."""
    camvid = Path(os.environ.get('CAMVID_ROOT', ROOT / '../shared/data/camvid'))
    names = (camvid / f'splits/drives_{labels}/labeled.txt').read_text().split()
    counts = sum(np.bincount(np.asarray(Image.open(camvid / f'ann_dir/train/{name}.png')).ravel(), minlength=256)[:11]
                 for name in names)
    expected = 1 / np.log(1.02 + counts / counts.sum())
    model = Config.fromfile(CONFIGS / f'{stem}_{labels}.py', import_custom_modules=False).model
    for loss in [model.decode_head.loss_decode] + ([model.unsup_loss] if 'unsup_loss' in model else []):
        assert loss.class_weight == pytest.approx(expected.tolist(), abs=0.05001)
