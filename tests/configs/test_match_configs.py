"""FixMatch-EMA and MaskMatch with a ResNet-101: the numbers of UniMatch's protocol and of the two specifications."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
METHODS = ['fixmatch_ema', 'maskmatch']

# baselines.md section 5, per data set; counts are images a GPU, labeled and unlabeled.
VOC = dict(num_classes=21, epochs=80, lr=0.001, lr_head=0.01, tau=0.95, supervised='ValidCrossEntropyLoss',
           test=dict(mode='whole'))
CLASSIC = dict(VOC, lists='voc/classic', crop=321, counts=(2, 2), gpus=4, block=32)
BLENDED = dict(VOC, lists='voc/blended_u2pl', crop=513, counts=(4, 4), gpus=2, block=64)
CITYSCAPES = dict(
    num_classes=19, epochs=240, lr=0.005, lr_head=0.005, tau=0, supervised='OHEMCrossEntropyLoss',
    lists='cityscapes/u2pl', crop=801, counts=(2, 2), gpus=4, block=64,
    test=dict(mode='slide', crop_size=(801, 801), stride=(534, 534), slide_average='prob', slide_windows='cut'))
# common.md section 7: labeled -> unlabeled images.
SETTINGS = {
    f'{data["lists"].replace("/", "_")}_{labeled}': (data, labeled, unlabeled)
    for data, sizes in [
        (CLASSIC, {92: 10490, 183: 10399, 366: 10216, 732: 9850, 1464: 9118}),
        (BLENDED, {662: 9920, 1323: 9259, 2646: 7936, 5291: 5291}),
        (CITYSCAPES, {186: 2789, 372: 2603, 744: 2231, 1488: 1487}),
    ] for labeled, unlabeled in sizes.items()
}
FAMILIES = ['voc_classic_92', 'voc_blended_u2pl_662', 'cityscapes_u2pl_186']
PHOTOMETRIC = [
    dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
    dict(type='RandomGrayscale', prob=0.2),
    dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5)
]
CUTMIX = dict(type='CutMix', box='area_ratio', prob=0.5, per='image', partner='flip')

every_setting = pytest.mark.parametrize('name', SETTINGS)
every_method = pytest.mark.parametrize('method', METHODS)


def load(method, name):
    """Loads a config and makes mmseg's scope the default."""
    cfg = Config.fromfile(CONFIGS / method / f'{method}_r101_{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def outline(cfg):
    """The model with shapes but no memory."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def types(pipeline):
    return [transform['type'] for transform in pipeline]


@every_method
def test_there_are_configs_for_every_setting(method):
    found = {path.stem for path in (CONFIGS / method).glob('*_r101_*.py')}
    others = {name for name in found if '_coco_' in name or '_ade20k_' in name}  # test_benchmark_configs.py
    assert found - others == {f'{method}_r101_{name}' for name in SETTINGS}
    assert all(len(path.read_text().splitlines()) < 15 for path in (CONFIGS / method).glob('*_r101_*.py'))


# ---- the published numbers --------------------------------------------------------------------------------------


def test_iterations_of_the_specification():
    """The two totals that baselines.md spells out."""
    for name, total in [('voc_classic_92', 104880), ('cityscapes_u2pl_186', 83520)]:
        assert load('fixmatch_ema', name).train_cfg.max_iters == total


@every_method
@every_setting
def test_schedule(method, name):
    data, _, unlabeled = SETTINGS[name]
    cfg = load(method, name)
    iterations = data['epochs'] * (unlabeled // 8)
    assert cfg.train_cfg.type == 'IterBasedTrainLoop' and cfg.train_cfg.max_iters == iterations
    assert cfg.param_scheduler == dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=iterations, by_epoch=False)
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval


@every_method
@every_setting
def test_data(method, name):
    data, labeled_images, _ = SETTINGS[name]
    cfg = load(method, name)
    loader, crop = cfg.train_dataloader, (data['crop'], ) * 2
    assert tuple(loader.sampler.counts) == data['counts'] and loader.batch_size == sum(data['counts'])
    assert [data['gpus'] * count for count in data['counts']] == [8, 8]
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    labeled, unlabeled = loader.dataset.labeled, loader.dataset.unlabeled
    split = f'splits/{data["lists"]}/{labeled_images}'
    assert (labeled.ann_file, unlabeled.ann_file) == (f'{split}/labeled.txt', f'{split}/unlabeled.txt')
    weak = ['RandomScale', 'RandomCrop', 'RandomFlip', 'PackSegInputs']
    assert types(labeled.pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap', *weak]
    assert types(unlabeled.pipeline) == ['LoadImageFromFile', *weak]
    assert labeled.pipeline[2].num_classes == data['num_classes']
    assert labeled.pipeline[3:] == unlabeled.pipeline[1:]
    scale, cropping, flip, _ = unlabeled.pipeline[1:]
    assert (tuple(scale.ratio_range), scale.law, flip.prob) == ((0.5, 2.0), 'uniform', 0.5)
    assert tuple(cropping.crop_size) == crop and 'cat_max_ratio' not in cropping
    assert tuple(cfg.model.data_preprocessor['size']) == crop
    assert cfg.model.data_preprocessor.type == 'SemiSegDataPreProcessor'
    assert cfg.model.test_cfg == data['test'] and cfg.val_dataloader.batch_size == 1


@every_method
@every_setting
def test_method(method, name):
    data = SETTINGS[name][0]
    model = load(method, name).model.to_dict()
    assert model['type'] == 'SemiEncoderDecoder' and model['joint_forward'] and model['start_iter'] == 0
    assert model['eval_with'] == 'both'
    assert model['unsup_loss'] == dict(type='PseudoLabelCrossEntropy', norm='valid')
    # Half of the loss is supervised, whatever the number of branches.
    loss = model['decode_head']['loss_decode']
    assert loss.pop('type') == data['supervised'] and loss.pop('loss_weight') == 0.5
    assert loss == ({} if data['num_classes'] == 21 else dict(thresh=0.7, min_kept=200000))
    assert model.get('auxiliary_head') is None
    threshold = dict(type='ThresholdLabeler', threshold=data['tau'])
    if method == 'fixmatch_ema':
        assert model['labeler'] == threshold
        assert model['branches'] == [dict(augments=[*PHOTOMETRIC, CUTMIX], loss_weight=0.5)]
        return
    assert model['labeler'] == dict(type='MultiScaleLabeler', labeler=threshold, scales=(0.5, 1.0, 1.5), flip=False,
                                    every_n=1, warm_iters=0)
    mask = dict(type='PatchMask', block_size=data['block'], ratio=0.7, ratio_mode='bernoulli', fill='zero',
                loss_region='all')
    assert model['branches'] == [
        dict(augments=[*PHOTOMETRIC, CUTMIX], loss_weight=0.25),
        dict(augments=[*PHOTOMETRIC, mask], loss_weight=0.25, update_bn=False)
    ]
    assert data['crop'] // data['block'] >= 8  # fewer cells make the visible share noisy


@every_method
@every_setting
def test_teacher(method, name):
    hook = load(method, name).custom_hooks[0].to_dict()
    assert hook == dict(type='EMATeacherHook', decay=0.996, buffers='average')


@every_setting
def test_maskmatch_changes_labels_and_branches_only(name):
    """Data, optimizer, epochs, crop, batch, rates: exactly FixMatch's (maskmatch.md section 6)."""
    fixmatch, maskmatch = (load(method, name).to_dict() for method in METHODS)
    for cfg in (fixmatch, maskmatch):
        cfg.pop('semi')
        assert cfg['model'].pop('labeler') and cfg['model'].pop('branches')
    assert maskmatch == fixmatch


# ---- the network ------------------------------------------------------------------------------------------------


@every_method
@every_setting
def test_network(method, name):
    data = SETTINGS[name][0]
    cfg = load(method, name)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='open-mmlab://resnet101_v1c')
    model = outline(cfg)
    layers = [getattr(model.backbone, f'layer{i}') for i in range(1, 5)]
    assert [len(layer) for layer in layers] == [3, 4, 23, 3]
    assert [layer[0].conv2.stride[0] for layer in layers] == [1, 2, 2, 1]  # output stride 16 with the stem's 4
    assert [block.conv2.dilation[0] for layer in layers[:3] for block in layer] == [1] * 30
    assert [block.conv2.dilation[0] for block in layers[3]] == [1, 2, 2]  # no multi-grid
    stem = [m.out_channels for m in model.backbone.stem if isinstance(m, torch.nn.Conv2d)]
    assert stem == [32, 32, 64]  # the public weights
    head = model.decode_head
    assert type(head).__name__ == 'DeepLabV3PlusHead' and head.align_corners and head.dropout_ratio == 0
    assert (head.in_channels, head.channels, head.dilations) == (2048, 256, (1, 6, 12, 18))
    assert head.c1_bottleneck.conv.weight.shape == (48, 256, 1, 1)
    shapes = [tuple(m.weight.shape) for m in head.classifier.modules() if isinstance(m, torch.nn.Conv2d)]
    assert shapes == [(256, 304, 3, 3), (256, 256, 3, 3)]
    assert head.conv_seg.weight.shape == (data['num_classes'], 256, 1, 1)
    norms = [m for m in model.modules() if 'BatchNorm' in type(m).__name__]
    assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)


@every_method
@pytest.mark.parametrize('name', FAMILIES)
def test_rates(method, name):
    data, cfg = SETTINGS[name][0], load(method, name)
    model = outline(cfg)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.SGD
    found = {names[id(p)]: (g['lr'], g['weight_decay'], g['momentum'], g['nesterov'])
             for g in optimizer.param_groups for p in g['params']}
    assert found.keys() == {name for name in names.values() if not name.startswith('teacher.')}
    for parameter, rates in found.items():
        lr = data['lr' if parameter.startswith('backbone.') else 'lr_head']
        assert rates == (pytest.approx(lr), 1e-4, 0.9, False), parameter


# ---- they run ---------------------------------------------------------------------------------------------------


def write_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope='module')
def data_roots(tmp_path_factory):
    """Both data sets in their own layout: 3 labeled, 3 unlabeled and 2 validation images, and the smallest lists."""
    rng = np.random.default_rng(0)
    layouts = {
        'VOC_ROOT': dict(
            train=[f'2007_00003{i}' for i in range(6)], val=['2007_000042', '2007_000061'], classes=21,
            image='JPEGImages/{}.jpg', mask='SegmentationClassAug/{}.png', val_image='JPEGImages/{}.jpg',
            val_mask='SegmentationClass/{}.png', splits=['voc/classic/92', 'voc/blended_u2pl/662']),
        'CITYSCAPES_ROOT': dict(
            train=[f'aachen/aachen_00000{i}_000019' for i in range(6)],
            val=[f'munster/munster_00000{i}_000019' for i in range(2)], classes=19,
            image='leftImg8bit/train/{}_leftImg8bit.png', mask='gtFine/train/{}_gtFine_labelTrainIds.png',
            val_image='leftImg8bit/val/{}_leftImg8bit.png', val_mask='gtFine/val/{}_gtFine_labelTrainIds.png',
            splits=['cityscapes/u2pl/186'])
    }
    roots = {}
    for variable, layout in layouts.items():
        root = roots[variable] = tmp_path_factory.mktemp(variable.lower())
        labeled, unlabeled, val = layout['train'][:3], layout['train'][3:], layout['val']
        for names, pattern in [(layout['train'], layout['image']), (val, layout['val_image'])]:
            for name in names:
                write_image(root / pattern.format(name), rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
        for names, pattern in [(labeled, layout['mask']), (val, layout['val_mask'])]:
            for name in names:
                rows = rng.integers(0, layout['classes'], (64, 1), dtype=np.uint8)
                write_image(root / pattern.format(name), np.repeat(rows, 96, axis=1))
        lists = {f'splits/{split}/{part}.txt': names for split in layout['splits']
                 for part, names in [('labeled', labeled), ('unlabeled', unlabeled)]}
        for file, names in {**lists, 'ImageSets/Segmentation/val.txt': val}.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(''.join(f'{name}\n' for name in names))
    return roots


@pytest.fixture
def make_runner(data_roots, tmp_path, monkeypatch):
    """Function that builds the runner of a config; the network is a ResNet-18 of 8 channels."""
    for variable, root in data_roots.items():
        monkeypatch.setenv(variable, str(root))

    def make(method, name, change=lambda cfg: None):
        cfg = load(method, name)
        cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
        cfg.model.decode_head.update(in_channels=64, c1_in_channels=8, channels=8, c1_channels=8)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        cfg.work_dir, cfg.launcher, cfg.experiment_name = str(tmp_path), 'none', f'{method}_{name}'
        change(cfg)
        return Runner.from_cfg(cfg)

    return make


@every_method
@pytest.mark.parametrize('name', FAMILIES)
def test_runner_builds(method, name, make_runner):
    """Hooks, loops, lists and data as the config names them."""
    runner = make_runner(method, name)
    data = SETTINGS[name][0]
    assert {type(hook).__name__ for hook in runner.hooks} >= {'EMATeacherHook', 'KeptShareHook'}
    assert len(runner.val_loop.dataloader) == len(runner.test_loop.dataloader) == 2
    labeled, unlabeled = runner.train_loop.dataloader.dataset.datasets
    infos = [[part.get_data_info(i) for i in range(len(part))] for part in (labeled, unlabeled)]
    assert [len(part) for part in infos] == [3, 3]
    assert all(Path(info['seg_map_path']).is_file() for info in infos[0])
    assert not any('seg_map_path' in info for info in infos[1])
    batch = runner.model.data_preprocessor(next(iter(runner.train_loop.dataloader)), training=True)['inputs']
    assert batch.labeled.shape == batch.weak.shape == (data['counts'][0], 3, data['crop'], data['crop'])
    assert not batch.valid.all()  # the images here are smaller than a crop


def shrink(cfg):
    """Two steps on crops of 65, and a threshold that an untrained teacher reaches."""
    cfg.train_cfg.max_iters = cfg.param_scheduler.end = 2
    cfg.default_hooks.logger.interval = 1
    cfg.model.data_preprocessor['size'] = (65, 65)
    cfg.train_dataloader.dataset.labeled.pipeline[4].crop_size = (65, 65)
    cfg.train_dataloader.dataset.unlabeled.pipeline[2].crop_size = (65, 65)
    labeler = cfg.model.labeler
    labeler.get('labeler', labeler).threshold = 0.0
    mask = cfg.model.branches[-1].augments[-1]
    if mask.type == 'PatchMask':
        mask.block_size = 16  # a crop of one cell is refused
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(65, 65), stride=(43, 43))


@pytest.mark.slow
@every_method
@pytest.mark.parametrize('name', ['voc_classic_92', 'cityscapes_u2pl_186'])
def test_trains_and_validates(method, name, make_runner, tmp_path):
    runner = make_runner(method, name, shrink)
    runner.train()
    metrics = runner.val()
    assert {'mIoU', 'student/mIoU'} <= metrics.keys()
    logged = {key: runner.message_hub.get_scalar(key).current() for key in runner.message_hub.log_scalars}
    supervised = 'train/decode.loss_ohem' if name.startswith('cityscapes') else 'train/decode.loss_ce'
    branches = ['train/unsup_0.loss_ce'] + ['train/unsup_1.loss_ce'] * (method == 'maskmatch')
    assert {key for key in logged if '.loss' in key} == {supervised, *branches}
    assert all(np.isfinite(logged[key]) and logged[key] > 0 for key in [supervised, *branches])
    assert (tmp_path / 'iter_2.pth').exists()
