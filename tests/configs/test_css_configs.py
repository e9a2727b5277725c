"""The configs of CSS hold the published numbers of its specification (css.md), and the toolbox's decisions."""
import copy
import functools
import inspect
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.models.losses import attainable_similarity
from mmseg_semi.models.segmentors import CSS
from mmseg_semi.registry import MODELS

pytestmark = pytest.mark.usefixtures('data_roots')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

# Sections 6 and 8. Where paper and code differ: iterations and crop of the code, Cityscapes' rate of the paper.
VOC = dict(num_classes=21, crop=512, count=8, lr=6.4e-3, labeled_scale=(0.5, 1.5), strong_scale=(0.5, 1.5),
           test=dict(mode='whole'))
CITYSCAPES = dict(num_classes=19, crop=769, count=4, lr=3.8e-3, labeled_scale=None, strong_scale=(0.5, 2.0),
                  test=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
ITERATIONS, GPUS = 80000, 4
# Config name -> data set and list.
SPLITS = {
    **{f'voc_classic_{n}': (VOC, f'voc/classic/{n}') for n in (92, 183, 366, 732, 1464)},
    **{f'voc_blended_u2pl_{n}': (VOC, f'voc/blended_u2pl/{n}') for n in (662, 1323, 2646, 5291)},
    **{f'cityscapes_u2pl_{n}': (CITYSCAPES, f'cityscapes/u2pl/{n}') for n in (186, 372, 744, 1488)},
}
LISTS = {f'{variant}_r101_{name}': split for variant in ('mix', 'cross', 'ori') for name, split in SPLITS.items()}
EFFECTIVE = {'mix_r101_voc_classic_92_effective': (VOC, 'voc/classic/92')}
OFFICIAL = {f'{variant}_r101_voc_classic_92_official': (VOC, 'voc/classic/92') for variant in ('mix', 'cross')}
EVERY = {**LISTS, **EFFECTIVE, **OFFICIAL}
# One of each network.
CLASSIC, BLENDED, CITY = 'mix_r101_voc_classic_92', 'mix_r101_voc_blended_u2pl_662', 'mix_r101_cityscapes_u2pl_186'
NETWORKS = (CLASSIC, BLENDED, CITY)


@functools.cache
def css(name):
    """The config, which nobody edits."""
    return Config.fromfile(CONFIGS / f'css/css_{name}.py')


@functools.cache
def outline(name):
    """The model with shapes but no memory, so that a ResNet-101 costs nothing; nobody edits it either."""
    with torch.device('meta'):
        return MODELS.build(css(name).model)


def types(pipeline):
    return [transform['type'] for transform in pipeline]


def test_there_are_configs():
    assert {path.name for path in (CONFIGS / 'css').glob('*_r101_*.py')} == {f'css_{name}.py' for name in EVERY}


def test_the_base_spells_out_every_option():
    semi = Config.fromfile(CONFIGS / '_base_/semi/css.py').semi
    options = inspect.signature(CSS.__init__).parameters.keys() - {'self', 'args', 'kwargs'}
    assert len(options) > 12 and options <= semi.keys()


# ---- data: section 6 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', EVERY)
def test_data(name):
    data, split = EVERY[name]
    cfg = css(name)
    loader, dataset = cfg.train_dataloader, cfg.train_dataloader.dataset
    assert (dataset.labeled.ann_file, dataset.unlabeled.ann_file) == (
        f'splits/{split}/labeled.txt', f'splits/{split}/unlabeled.txt')
    masks = ('SegmentationClassAug', 'SegmentationClass') if data is VOC else ('gtFine/train', 'gtFine/val')
    assert (dataset.labeled.data_prefix.seg_map_path, cfg.val_dataloader.dataset.data_prefix.seg_map_path) == masks
    assert tuple(loader.sampler.counts) == (data['count'], data['count']) and loader.batch_size == 2 * data['count']
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=GPUS * loader.batch_size)

    labeled, unlabeled = dataset.labeled.pipeline, dataset.unlabeled.pipeline
    scale = ['RandomScale'] if data['labeled_scale'] else []
    assert types(labeled) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap', *scale, 'RandomCrop',
                              'RandomFlip', 'PackSegInputs']
    assert types(unlabeled) == ['LoadImageFromFile', 'RandomCrop', 'PackSegInputs']  # neither scaled nor flipped
    if scale:
        assert (tuple(labeled[3].ratio_range), labeled[3].law) == (data['labeled_scale'], 'uniform')
    assert labeled[2].num_classes == data['num_classes'] and labeled[-2].prob == 0.5
    crop = (data['crop'], ) * 2
    for cut in (labeled[-3], unlabeled[1]):
        assert tuple(cut.crop_size) == crop and 'cat_max_ratio' not in cut

    assert types(cfg.val_dataloader.dataset.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap',
                                                          'PackSegInputs']
    assert cfg.val_dataloader.batch_size == 1 and cfg.model.test_cfg == data['test']
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.type == 'SemiSegDataPreProcessor' and tuple(preprocessor['size']) == crop
    assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb is True and preprocessor.seg_pad_val == 255


def test_only_variants_share_a_list():
    names = defaultdict(set)
    for name in EVERY:
        names[css(name).train_dataloader.dataset.labeled.ann_file].add(name.split('_r101_')[1])
    assert len(names) == 13 and all(
        len({s.removesuffix('_official').removesuffix('_effective') for s in found}) == 1 for found in names.values())


@pytest.mark.parametrize('name', EVERY)
def test_augments(name):
    model = outline(name)
    branch, = model.branches
    assert [type(augment).__name__ for augment in branch.augments] == [
        'RandomScaleCrop', 'CutMix', 'ColorJitter', 'GaussianBlur', 'RandomMirror']
    scale, cutmix, *colors, mirror = branch.augments
    assert scale.ratio_range == EVERY[name][0]['strong_scale']
    assert (cutmix.box, cutmix.prob, cutmix.partner) == ('half_width', 1.0, 'next')
    assert mirror.prob == 0.5 and branch.loss_weight == 1.0
    assert [type(augment).__name__ for augment in model.labeled_augments.augments] == ['ColorJitter', 'GaussianBlur']
    for jitter, blur in (colors, model.labeled_augments.augments):
        assert jitter.ranges == dict(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.25) and jitter.prob == 0.8
        assert (blur.sigma, blur.prob) == ((0.15, 1.15), 0.5)


# ---- network and losses: sections 2 and 4 -----------------------------------------------------------------------


@pytest.mark.parametrize('name', NETWORKS)
def test_network(name):
    cfg, classes = css(name), EVERY[name][0]['num_classes']
    weights = 'torchvision://resnet101' if name == CLASSIC else 'open-mmlab://resnet101_v1c'
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=weights)
    model = outline(name)
    backbone, head = model.backbone, model.decode_head
    blocks = [getattr(backbone, f'layer{i}') for i in range(1, 5)]
    assert [len(layer) for layer in blocks] == [3, 4, 23, 3]
    assert [layer[0].conv2.stride[0] for layer in blocks] == [1, 2, 1, 1]
    # The plain stem keeps a smaller dilation in the first block; the deep one has the full one everywhere.
    assert [block.conv2.dilation[0] for block in blocks[2]] == [1 if name == CLASSIC else 2] + [2] * 22
    assert [block.conv2.dilation[0] for block in blocks[3]] == [2 if name == CLASSIC else 4] + [4] * 2
    if name == CLASSIC:
        assert type(backbone).__name__ == 'ResNet' and backbone.conv1.weight.shape == (64, 3, 7, 7)
    else:
        stem = [m.out_channels for m in backbone.stem if isinstance(m, torch.nn.Conv2d)]
        assert type(backbone).__name__ == 'ResNetV1c' and stem == [32, 32, 64]  # the public weights; CSS: 64, 64, 128

    assert type(head).__name__ == 'DeepLabV3PlusHead' and head.align_corners and head.dropout_ratio == 0
    assert (head.in_channels, head.in_index, head.dilations) == (2048, 3, (1, 12, 24, 36))
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if p.dim() == 4}
    assert shapes['bottleneck.conv.weight'] == (256, 1280, 1, 1)
    assert shapes['c1_bottleneck.conv.weight'] == (48, 256, 1, 1) and head.c1_bottleneck.conv.bias is None
    assert shapes['classifier.0.conv.weight'] == (256, 304, 3, 3) and shapes['conv_seg.weight'] == (classes, 256, 1, 1)
    assert len(shapes) == 9 and shapes['aspp_modules.1.conv.weight'] == (256, 2048, 3, 3)  # dense, not separable
    assert not model.with_auxiliary_head
    for representation in (model.representation_head, model.teacher.representation_head):
        assert representation.hidden.conv.weight.shape == (256, 304, 3, 3)
        assert representation.project.weight.shape == (256, 256, 1, 1)
        assert sum(p.numel() for p in representation.parameters()) == 766720
    assert model.prototypes.shape == (classes, 256)
    norms = [m for m in model.modules() if 'BatchNorm' in type(m).__name__]
    assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)


@pytest.mark.parametrize('name', EVERY)
def test_losses(name):
    data = EVERY[name][0]
    model = outline(name)
    supervised, unsupervised = model.decode_head.loss_decode, model.unsup_loss
    assert supervised.loss_weight == 1.0 and supervised.class_weight is None
    if data is VOC:
        assert type(supervised).__name__ == 'ValidCrossEntropyLoss'
    else:
        assert type(supervised).__name__ == 'OHEMCrossEntropyLoss'
        assert (supervised.thresh, supervised.min_kept) == (0.7, 50000 * data['count'])
    assert type(unsupervised).__name__ == 'ImageWeightedCrossEntropy' and unsupervised.class_weight is None
    assert (unsupervised.threshold, unsupervised.weight_numerator, unsupervised.mean_over) == (0.97, 'all', 'positive')


# ---- method: sections 3, 7 and 8 --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', EVERY)
def test_method(name):
    variant, official = name.split('_')[0], name in OFFICIAL
    model = outline(name)
    assert type(model) is CSS and model.variant == variant
    assert model.contrast_threshold == 0.7 and model.hard_threshold == (0.97 if variant == 'ori' else 0.8)
    assert model.tau_contrast == 0.5 and model.tau_sim == (
        0.1 if variant == 'cross' and not official or name in EFFECTIVE else 0.5)
    assert model.sampling == dict(num_anchors=256, num_negatives=512, share_negatives=False)
    assert model.prototype_momentum == 0.99 and model.unseen == ('zero' if official else 'mask')
    # Every pixel gets a label: confidence weighs images and chooses pixels for the contrast.
    assert type(model.labeler).__name__ == 'ThresholdLabeler' and model.labeler.threshold == 0
    assert model.start_iter == 0 and not model.joint_forward and model.eval_with == 'both'
    assert model.teacher_bn == 'batch'
    assert css(name).custom_hooks == [dict(type='EMATeacherHook', decay=0.99, buffers='own'),
                                      dict(type='KeptShareHook'), dict(type='TeacherBehindHook')]


@pytest.mark.parametrize('name', ['mix_r101_voc_classic_92', 'cross_r101_voc_classic_92', 'ori_r101_voc_classic_92',
                                  CITY, *OFFICIAL])
def test_ramp_and_warm_up(name):
    """Over the whole run; constant in ori; in the presets, 200 passes over 92 images in batches of 4 x 8."""
    model = copy.copy(outline(name))
    model.begin_train(css(name).train_cfg.max_iters)

    def weight(share):
        model.begin_iter(int(share * (200 * (92 // (GPUS * 8)) if name in OFFICIAL else ITERATIONS)), seed=0, rank=0)
        return model.contrast_weight()

    expected = [1] * 4 if name.startswith('ori') else [1, 0.7316, 0.2865, 0]
    assert [weight(share) for share in (0, 0.25, 0.5, 1)] == pytest.approx(expected, abs=5e-5)
    assert model._warmup == (0 if name in OFFICIAL else ITERATIONS // 10)


@pytest.mark.parametrize('name', EVERY)
def test_every_threshold_in_use_can_be_met(name):
    """In mix tau_sim only chooses anchors; the presets are as released, so their indicator and cross's loss are off."""
    data = EVERY[name][0]
    model = outline(name)
    bound = attainable_similarity(data['num_classes'], model.tau_sim)
    if name in OFFICIAL:
        assert bound < model.hard_threshold < model.unsup_loss.threshold
    elif model.variant == 'cross' or name in EFFECTIVE:
        assert bound > model.unsup_loss.threshold > model.hard_threshold
    else:
        assert model.variant == 'ori' or bound < model.hard_threshold


@pytest.mark.parametrize('name, changed', [
    ('mix_r101_voc_classic_92', {'unseen', 'ramp_iters', 'warmup_iters', 'tau_sim'}),  # tau_sim is spelled out
    ('cross_r101_voc_classic_92', {'unseen', 'ramp_iters', 'warmup_iters', 'tau_sim'}),
])
def test_official_preset(name, changed):
    ours, preset = css(name).to_dict(), css(f'{name}_official').to_dict()
    model = preset['model']
    assert {key for key in model if model[key] != ours['model'][key]} == changed
    assert (model['tau_sim'], model['unseen'], model['ramp_iters'], model['warmup_iters']) == (0.5, 'zero', 400, 0)
    ours.pop('model'), preset.pop('model')
    assert preset == ours


@pytest.mark.parametrize('name', EVERY)
def test_schedule(name):
    cfg = css(name)
    assert cfg.train_cfg.type == 'IterBasedTrainLoop' and cfg.train_cfg.max_iters == ITERATIONS
    assert cfg.param_scheduler == dict(
        type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=ITERATIONS, by_epoch=False)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=EVERY[name][0]['lr'], momentum=0.9, nesterov=True, weight_decay=5e-4)
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.save_best, checkpoint.by_epoch, checkpoint.max_keep_ckpts) == ('mIoU', False, 2)
    assert checkpoint.interval == cfg.train_cfg.val_interval and ITERATIONS % checkpoint.interval == 0


@pytest.mark.parametrize('name', NETWORKS)
def test_one_rate_for_everything(name):
    cfg, model = css(name), outline(name)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.SGD
    settings = {(g['lr'], g['weight_decay'], g['momentum'], g['nesterov']) for g in optimizer.param_groups}
    assert settings == {(EVERY[name][0]['lr'], 5e-4, 0.9, True)}
    found = [names[id(parameter)] for group in optimizer.param_groups for parameter in group['params']]
    assert sorted(found) == sorted(name for name in names.values() if not name.startswith('teacher.'))
    assert any(name.startswith('representation_head.') for name in found)


@pytest.mark.parametrize('name', [CLASSIC, CITY])
def test_rate_stays_beside_the_released_one(name):
    """Released: the polynomial cut off at 1e-4."""
    cfg, steps = css(name), 800
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    scheduler = PARAM_SCHEDULERS.build(dict(cfg.param_scheduler, end=steps, optimizer=optimizer))
    for step in range(steps):
        rate = optimizer.param_groups[0]['lr']
        released = max(EVERY[name][0]['lr'] * (1 - step / steps)**0.9, 1e-4)
        assert abs(rate - released) < 1e-4 and (step or rate == released)
        optimizer.step()
        scheduler.step()
    assert math.isclose(optimizer.param_groups[0]['lr'], 1e-4)


# ---- they run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', [CLASSIC, CITY])
def test_runner_builds(name, tmp_path):
    """Hooks, loops, lists and data as the config names them; only the network is cut down."""
    cfg, (data, split) = copy.deepcopy(css(name)), EVERY[name]
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
    cfg.model.decode_head.update(in_channels=64, c1_in_channels=8, channels=8, c1_channels=8)
    cfg.work_dir, cfg.launcher, cfg.experiment_name = str(tmp_path), 'none', name
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    assert {type(hook).__name__ for hook in runner.hooks} >= {'EMATeacherHook', 'KeptShareHook', 'CheckpointHook'}
    assert runner.train_loop.max_iters == ITERATIONS
    assert len(runner.val_loop.dataloader) == len(runner.test_loop.dataloader) == 2
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    scheduler, = runner.build_param_scheduler(cfg.param_scheduler)
    assert scheduler.end == ITERATIONS
    for hook in runner.hooks:
        if type(hook).__name__ == 'EMATeacherHook':
            hook.before_train(runner)
    assert (runner.model._ramp, runner.model._warmup) == (ITERATIONS, ITERATIONS // 10)
    # Which files, too: labels of the labeled images only, none of them unlabeled.
    labeled, unlabeled = runner.train_loop.dataloader.dataset.datasets
    assert Path(labeled.ann_file).parts[-4:-1] == Path(unlabeled.ann_file).parts[-4:-1] == tuple(split.split('/'))
    infos = [[d.get_data_info(i) for i in range(len(d))] for d in (labeled, unlabeled)]
    assert all(Path(info['seg_map_path']).is_file() for info in infos[0])
    assert not any('seg_map_path' in info for info in infos[1])
    assert not {info['img_path'] for info in infos[0]} & {info['img_path'] for info in infos[1]}
    batch = next(iter(runner.train_loop.dataloader))
    assert [len(batch[group]['inputs']) for group in ('labeled', 'unlabeled')] == [data['count']] * 2


OPTIONS = ['model.representation_head.channels=8', 'model.representation_head.out_channels=6',
           'train_dataloader.sampler.counts=(2,2)', 'train_dataloader.batch_size=4',
           'train_dataloader.dataset.unlabeled.pipeline.1.crop_size=(65,65)']


@pytest.mark.slow
@pytest.mark.parametrize('name, options', [
    (CLASSIC, ['train_dataloader.dataset.labeled.pipeline.4.crop_size=(65,65)']),
    (CITY, ['train_dataloader.dataset.labeled.pipeline.3.crop_size=(65,65)', 'model.test_cfg.crop_size=(65,65)',
            'model.test_cfg.stride=(43,43)']),
])
def test_trains_and_validates(name, options, train_two_steps):
    first, second, validation, state = train_two_steps(f'css/css_{name}.py', OPTIONS + options)
    classes = EVERY[name][0]['num_classes']
    supervised = 'decode.loss_ce' if classes == 21 else 'decode.loss_ohem'
    for record in (first, second):
        assert {key for key in record if '.loss' in key} == {supervised, 'unsup_0.loss_ce', 'contrast.loss_nce'}
        assert all(np.isfinite(value) for key, value in record.items() if '.loss' in key)
        assert record[supervised] > 0 and record['contrast.loss_nce'] > 0
    assert first['monitor.kept'] == 0  # no prototype yet, so nothing is agreed upon
    assert first['monitor.hard'] == second['monitor.hard'] == 1  # the indicator of mix cannot fire at its temperature
    assert (first['monitor.contrast_weight'], second['monitor.contrast_weight']) == pytest.approx(
        (1, math.exp(-5 * 0.5**2)))
    assert {'mIoU', 'student/mIoU'} <= validation.keys()
    assert state['prototypes'].shape == (classes, 6)
    assert 0 < state['prototype_seen'].sum() <= classes
    assert (state['prototypes'][state['prototype_seen']] != 0).any(1).all()
    assert 'teacher.representation_head.project.weight' in state
