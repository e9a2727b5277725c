"""The configs of CISC-R hold the published numbers of its specification (cisc_r.md), and they run."""
import copy
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.datasets import GuidedPairDataset, OnlineGuidedDataset
from mmseg_semi.engine.runner.stage import references
from mmseg_semi.models.segmentors import CISCOnline
from mmseg_semi.registry import MODELS

pytestmark = pytest.mark.usefixtures('data_roots')
ROOT = Path(__file__).resolve().parents[2]
# Section 8; number of training images.
VOC = dict(total=10582, classes=21, epochs=80, lr=0.001, crop=321, base=400, exclude=[0])
CITYSCAPES = dict(total=2975, classes=19, epochs=160, lr=0.004, crop=721, base=2048, exclude=[])
COCO = dict(total=118287, classes=81, epochs=30, lr=0.004, crop=513, base=None, exclude=[0])  # the public convention
LISTS = {
    **{f'voc_classic_{n}': (VOC, f'voc/classic/{n}', n) for n in (92, 183, 366, 732, 1464)},
    **{f'voc_blended_u2pl_{n}': (VOC, f'voc/blended_u2pl/{n}', n) for n in (662, 1323, 2646)},
    **{f'cityscapes_u2pl_{n}': (CITYSCAPES, f'cityscapes/u2pl/{n}', n) for n in (186, 372, 744)},
    **{f'coco_{n}': (COCO, f'coco/{n}', n) for n in (232, 463, 925, 1849, 3697)},
}
SMALL = ['tiny_shapes', 'lite0_camvid_24', 'lite0_camvid_12']
BATCH, GPUS = 32, 4


def load(name):
    cfg = Config.fromfile(ROOT / f'configs/cisc_r/cisc_r_{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def plan_of(name, tmp_path):
    """The plan and its three training stages, references unresolved."""
    cfg = load(name)
    cfg.work_dir = str(tmp_path)
    plan = RUNNERS.build(cfg)
    stages = []
    for i, stage in enumerate(plan.stages):
        if stage['type'] == 'TrainStage':
            stages.append(plan._build(i, {name: name for name in references(stage, plan.names)}))
    return plan, stages


def test_there_are_configs():
    expected = [*SMALL, *(f'r101_{name}' for name in LISTS)]
    assert {path.stem for path in (ROOT / 'configs/cisc_r').glob('*.py')} == {
        f'cisc_r_{kind}{name}' for kind in ('', 'online_') for name in expected}


@pytest.mark.parametrize('name', SMALL + [f'r101_{name}' for name in LISTS])
def test_every_plan_is_whole(name, tmp_path):
    plan, (sup, re1, re2) = plan_of(name, tmp_path)
    assert plan.names == ['index', 'sup', 'label_all', 'select', 're1', 'label_unreliable', 're2']
    assert [stage.cfg.model.type for stage in (sup, re1, re2)] == ['CISCPair', 'CISCRectify', 'CISCRectify']
    end = 'last' if 'camvid' in name else 'best'
    assert [stage.cfg.custom_hooks[0].get('checkpoint') for stage in (sup, re1, re2)] == [
        None, f'sup:{end}', f're1:{end}']
    labeled = load(name).train_dataloader.dataset.to_dict()
    pairs, first, second = (stage.cfg.train_dataloader.dataset for stage in (sup, re1, re2))
    assert pairs.index == 'index:class_index'
    assert first.unlabeled.index == second.unlabeled.index == 'select:guide_index'
    for dataset in (pairs.primary, pairs.labeled, first.labeled, first.unlabeled.labeled, second.unlabeled.labeled):
        assert dataset.to_dict() == labeled
    assert first.unlabeled.primary.ann_file == 'select:reliable'
    assert second.unlabeled.primary.get('ann_file') == load(name).unlabeled.get('ann_file')
    assert second.unlabeled.primary.mask_dirs == ['label_unreliable:masks', 'label_all:masks']
    for stage in (re1, re2):
        loader = stage.cfg.train_dataloader
        assert sum(loader.sampler.counts) == loader.batch_size and loader.collate_fn.type == 'semi_collate'


def features(model):
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(model)).tap.channels


def check_lists(labeled, unlabeled, data, split):
    """COCO has no lists of unlabeled images: these are the others."""
    assert labeled.ann_file == f'splits/{split}/labeled.txt'
    assert (unlabeled.get('ann_file'), unlabeled.get('exclude')) == (
        (None, labeled.ann_file) if data is COCO else (f'splits/{split}/unlabeled.txt', None))


@pytest.mark.parametrize('name', LISTS)
def test_published_numbers(name, tmp_path):
    data, split, labeled = LISTS[name]
    plan, stages = plan_of(f'r101_{name}', tmp_path)
    unlabeled = data['total'] - labeled
    images = [labeled * (2 if labeled < 200 else 1), unlabeled // 2, unlabeled]
    if data is COCO:
        images[0] = max(100 * BATCH, labeled)
    for stage, count in zip(stages, images, strict=True):
        steps = data['epochs'] * (count // BATCH)
        assert stage.cfg.train_cfg.max_iters == stage.cfg.param_scheduler.end == steps
        assert stage.cfg.param_scheduler.power == 0.9
        assert stage.cfg.optim_wrapper.optimizer == dict(type='SGD', lr=data['lr'], momentum=0.9, weight_decay=1e-4)
    assert stages[0].cfg.train_dataloader.batch_size * GPUS == BATCH
    for stage in stages:
        assert stage.cfg.auto_scale_lr == dict(
            enable=False, base_batch_size=GPUS * stage.cfg.train_dataloader.batch_size)
    assert tuple(count * GPUS for count in stages[1].cfg.train_dataloader.sampler.counts) == (BATCH, BATCH)
    cfg, index, select = load(f'r101_{name}'), plan.stages[0], plan.stages[3]
    check_lists(cfg.train_dataloader.dataset, cfg.unlabeled, data, split)
    assert (index['min_area'], list(index['exclude'])) == (0.03, data['exclude'])
    assert (select['ratio'], select['scorer']['guide_ratio'], select['scorer']['reduce']) == (0.5, 0.5, 'sum')
    assert select['scorer']['repeats'] == (4 if data is CITYSCAPES else 1)
    assert tuple(plan.stages[2]['scales']) == (0.5, 0.75, 1.0, 1.5, 2.0)
    resize, pad, crop, flip = cfg.train_dataloader.dataset.pipeline[3:7]
    assert resize.get('scale') == (data['base'] and (data['base'], ) * 2) and tuple(resize.ratio_range) == (0.5, 2.0)
    assert tuple(crop.crop_size) == tuple(pad.size) == (data['crop'], ) * 2 and flip.prob == 0.5
    for stage in stages:
        assert features(stage.cfg.model) == 256  # section 4: the classifier's input
    model = stages[1].cfg.model
    assert (model.teacher_view, model.average_ignored, model.consistency_weight) == ('strong', True, 0)
    assert model.guidance == dict(pool_eps=5e-4, similarity_range='relu')
    assert [augment.type for augment in model.augments] == ['ColorJitter', 'RandomGrayscale', 'GaussianBlur']
    assert stages[1].cfg.train_dataloader.dataset.unlabeled.sampling == 'multiset'
    assert model.decode_head.num_classes == data['classes'] and model.decode_head.channels == 256


def test_lengths_of_the_specification(tmp_path):
    """Section 2."""
    for name, steps in dict(voc_blended_u2pl_662=[1600, 12400, 24800], voc_blended_u2pl_1323=[3280, 11520, 23120],
                            voc_blended_u2pl_2646=[6560, 9920, 19840], voc_classic_92=[400, 13040, 26160]).items():
        assert [stage.cfg.train_cfg.max_iters for stage in plan_of(f'r101_{name}', tmp_path)[1]] == steps


def rates(scheduler, steps):
    """The learning rate of each step from 1e-3 on."""
    optimizer, found = torch.optim.SGD([torch.zeros(1)], lr=1e-3), []
    scheduler = PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return found


def test_rates_of_the_specification(tmp_path):
    """Section 12, worked example 11. mmengine's PolyLR is at its end one step early, at step T - 1 of 0..T - 1."""
    cfg = plan_of('r101_voc_classic_92', tmp_path)[1][0].cfg
    example = [1e-3, 7.718895e-4, 5.358867e-4, 2.871746e-4]
    assert rates(dict(cfg.param_scheduler, end=5), 4) == pytest.approx(example, rel=1e-6)
    steps = cfg.train_cfg.max_iters
    published = [1e-3 * (1 - t / steps)**0.9 for t in range(steps)]
    # As shipped, no rate is further away than the last one, which is 0.
    assert rates(cfg.param_scheduler, steps) == pytest.approx(published, abs=published[-1] * (1 + 1e-6))
    assert published[-1] < 0.005 * 1e-3


def test_the_base_of_single_runs_spells_out_every_option():
    semi = Config.fromfile(ROOT / 'configs/_base_/semi/cisc_r_online.py').semi
    assert inspect.signature(CISCOnline.__init__).parameters.keys() - {'self', 'args', 'kwargs'} <= semi.keys()


@pytest.mark.parametrize('name', LISTS)
def test_single_runs(name):
    data, split, labeled = LISTS[name]
    cfg = load(f'online_r101_{name}')
    sets = cfg.train_dataloader.dataset
    for labeled_set in (sets.labeled.primary, sets.labeled.labeled, sets.unlabeled.labeled):
        check_lists(labeled_set, sets.unlabeled.primary, data, split)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.end == data['epochs'] * (
        (data['total'] - labeled) // (GPUS * cfg.train_dataloader.sampler.counts[1]))
    assert cfg.optim_wrapper.optimizer.lr == data['lr'] and cfg.custom_hooks[0].decay == 0.996
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=GPUS * cfg.train_dataloader.batch_size)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.tap.channels == model.teacher_tap.channels == 256
    for index in (sets.labeled.index, sets.unlabeled.index):
        assert (index.min_area, tuple(index.exclude)) == (model.min_area, model.exclude)
    parameters = {id(p) for group in build_optim_wrapper(model, cfg.optim_wrapper).param_groups
                  for p in group['params']}
    assert not parameters & {id(p) for p in model.teacher.parameters()}


@pytest.mark.parametrize('name', ['voc_classic_366', 'cityscapes_u2pl_372', 'coco_463'])
def test_single_runs_read_the_published_layout(name, tmp_path):
    cfg = copy.deepcopy(load(f'online_r101_{name}'))
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
    cfg.model.decode_head.update(in_channels=64, c1_in_channels=8, channels=8, c1_channels=8)
    cfg.work_dir, cfg.launcher, cfg.experiment_name = str(tmp_path), 'none', name
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.update(batch_size=2)
    cfg.train_dataloader.dataset.unlabeled.primary.pipeline[1].ratio_range = (0.2, 0.2)  # smaller than the crop
    cfg.train_dataloader.sampler.counts = (1, 1)
    runner = Runner.from_cfg(cfg)
    labeled, unlabeled = runner.train_dataloader.dataset.datasets
    assert type(labeled) is GuidedPairDataset and type(unlabeled) is OnlineGuidedDataset
    batch = runner.model.data_preprocessor(next(iter(runner.train_dataloader)), True)['inputs']
    crop = LISTS[name][0]['crop']
    assert not batch.valid[:, -1, -1].any()  # padding is no label
    assert batch.labeled.shape == (2, 3, crop, crop) and batch.guide.shape == batch.weak.shape == (1, 3, crop, crop)
    for hook in runner.hooks:
        if type(hook).__name__ == 'GuideTableHook':
            hook.before_train(runner)


def call(folder, *command):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-W', 'ignore', *map(str, command)], cwd=folder, env=env, text=True,
                          timeout=500, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_smoke_plan(tmp_path):
    call(tmp_path, ROOT / 'tools/dataset_converters/make_shapes.py', '--out', 'data/shapes', '--num-unlabeled', 24,
         '--num-val', 4)
    command = [ROOT / 'tools/self_train.py', ROOT / 'configs/cisc_r/cisc_r_tiny_shapes.py', '--work-dir', 'plan',
               '--cfg-options', 'epochs=1', 'epoch_steps.sup=6', 'epoch_steps.re1=4', 'epoch_steps.re2=4']
    assert '12 of 24 images are reliable' in call(tmp_path, *command)
    stages = json.loads((tmp_path / 'plan/state.json').read_text())['stages']
    assert all(stage['status'] == 'done' for stage in stages.values()) and len(stages) == 7
    assert call(tmp_path, *command).count('done before, skipped') == 7


@pytest.mark.slow
def test_a_single_run_with_workers(tmp_path):
    """Persistent workers see the table; the run resumes with it."""
    call(tmp_path, ROOT / 'tools/dataset_converters/make_shapes.py', '--out', 'data/shapes', '--num-unlabeled', 16,
         '--num-val', 2)
    command = [ROOT / 'tools/train.py', ROOT / 'configs/cisc_r/cisc_r_online_tiny_shapes.py', '--work-dir', 'run']
    options = ['--cfg-options', 'model.start_iter=1', 'train_cfg.val_interval=3', 'default_hooks.logger.interval=1',
               'default_hooks.checkpoint.interval=3']
    call(tmp_path, *command, *options, 'train_cfg.max_iters=3')
    out = call(tmp_path, *command, '--resume', *options, 'train_cfg.max_iters=6')
    assert 'The guide table comes from the checkpoint.' in out and 'monitor.has_guide' in out
    table = torch.load(tmp_path / 'run/iter_6.pth', map_location='cpu', weights_only=False)['guide_table']['table']
    assert table.shape == (16, 7) and table.any(1).all()
