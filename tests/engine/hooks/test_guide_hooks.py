"""The table of CISC-R in a single run, and the hooks around guides, in real runs of a tiny network."""
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_semi.engine.hooks import FrozenTeacherHook, GuideShareHook, GuideTableHook

CLASSES = ('a', 'b', 'c', 'd')
CROP = [dict(type='RandomCrop', crop_size=(33, 33)), dict(type='PackSegInputs')]
LOAD = [dict(type='LoadImageFromFile')]


@pytest.fixture
def make_cfg(tmp_path, tiny_cfg):
    """Function that makes the config of a run: 3 labeled and 6 unlabeled images of 33 x 33."""
    rng = np.random.default_rng(0)
    for kind, count in (('l', 3), ('u', 6), ('other', 6)):
        for i in range(count):
            mask = np.kron(rng.integers(4, size=(3, 3)), np.ones((11, 11))).astype(np.uint8)
            for folder in (kind, f'ann_{kind}'):
                (tmp_path / folder).mkdir(exist_ok=True)
            image = (mask[..., None] * 60 + rng.integers(40, size=(33, 33, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / kind / f'{kind}{i}.png')
            Image.fromarray(mask).save(tmp_path / f'ann_{kind}' / f'{kind}{i}.png')

    def make(steps, work_dir='run', images='u', **options):
        labeled = dict(type='BaseSegDataset', data_root=str(tmp_path), img_suffix='.png',
                       metainfo=dict(classes=CLASSES), data_prefix=dict(img_path='l', seg_map_path='ann_l'),
                       pipeline=[*LOAD, dict(type='LoadAnnotations'), *CROP])
        unlabeled = dict(type='UnlabeledDataset', data_root=str(tmp_path), data_prefix=dict(img_path=images),
                         pipeline=[*LOAD, *CROP])
        index = dict(exclude=[0])
        model = dict(copy.deepcopy(tiny_cfg.to_dict()), type='CISCOnline', exclude=[0],
                     branches=[dict(augments=[dict(type='ColorJitter')])],
                     labeler=dict(type='ThresholdLabeler', threshold=0))
        model['data_preprocessor']['type'] = 'GuidedSegDataPreProcessor'
        cfg = Config(dict(
            default_scope='mmseg', model=model, randomness=dict(seed=0), work_dir=str(tmp_path / work_dir),
            experiment_name=f'{tmp_path.name}_{work_dir}_{steps}',
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01),
                               constructor='SemiOptimWrapperConstructor'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=100),
            train_dataloader=dict(
                batch_size=3, num_workers=0, collate_fn=dict(type='semi_collate'),
                sampler=dict(type='LabeledUnlabeledSampler', counts=(1, 2), seed=0),
                dataset=dict(
                    type='SemiDataset',
                    labeled=dict(type='GuidedPairDataset', primary=labeled, labeled=labeled, index=index),
                    unlabeled=dict(type='OnlineGuidedDataset', primary=unlabeled, labeled=labeled, index=index))),
            custom_hooks=[dict(type='EMATeacherHook'), dict(type='GuideTableHook')],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
                               logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False))))
        cfg.merge_from_dict(options)
        return cfg

    return make


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, runner.train_dataloader.dataset.datasets[1].table


def saved(tmp_path, steps, work_dir='run'):
    """The table of a checkpoint, with what was still to be written to it."""
    found = torch.load(tmp_path / work_dir / f'iter_{steps}.pth', map_location='cpu', weights_only=False)['guide_table']
    _, rows, classes = found['pending']
    found['table'][rows] = classes
    return found


def test_the_table_follows_the_predictions(make_cfg, tmp_path):
    cfg = make_cfg(3)
    seen = {}
    runner = Runner.from_cfg(cfg)
    model, step = runner.model, runner.model.train_step

    def note(data, optim_wrapper):
        losses = step(data, optim_wrapper)
        for sample, row in zip(data['unlabeled']['data_samples'], model.predicted_classes, strict=True):
            seen[sample.table_row] = row.clone()
        return losses

    model.train_step = note
    runner.train()
    assert len(seen) == 6  # every unlabeled image once
    tables = [saved(tmp_path, i)['table'] for i in (1, 2, 3)]
    assert torch.equal(tables[2], torch.stack([seen[row] for row in range(6)])) and tables[2].any(1).all()
    assert [int(table.any(1).sum()) for table in tables] == [2, 4, 6]  # complete at each checkpoint
    assert tables[2].dtype == torch.uint8


def test_a_run_goes_on_with_the_table(make_cfg, tmp_path):
    train(make_cfg(2))
    before = saved(tmp_path, 2)['table']
    cfg = make_cfg(3, resume=True)
    runner = Runner.from_cfg(cfg)
    tables = []
    model, step = runner.model, runner.model.train_step
    model.train_step = lambda data, optim_wrapper: (
        tables.append(runner.train_dataloader.dataset.datasets[1].table.clone()), step(data, optim_wrapper))[1]
    runner.train()
    assert int(before.any(1).sum()) == 4 and len(tables) == 1
    # The classes of the last step before the stop are written after the first one that follows, as without a stop.
    assert int(tables[0].any(1).sum()) == 2 and torch.equal(tables[0], before * tables[0].any(1, keepdim=True))
    assert torch.equal(saved(tmp_path, 3)['table'] * before.any(1, keepdim=True), before)


def test_a_checkpoint_does_not_move_the_table(make_cfg):
    """Only one rank saves: if it wrote to its table then, its next guides would be others than those of the rest."""
    tables = {}
    for interval in (1, 10):
        runner = Runner.from_cfg(make_cfg(3, f'every_{interval}', **{
            'default_hooks.checkpoint': dict(interval=interval, save_last=False)}))
        step, seen = runner.model.train_step, tables.setdefault(interval, [])
        runner.model.train_step = lambda data, optim_wrapper, step=step, seen=seen, runner=runner: (
            seen.append(runner.train_dataloader.dataset.datasets[1].table.clone()), step(data, optim_wrapper))[1]
        runner.train()
    assert [int(table.any(1).sum()) for table in tables[10]] == [0, 0, 2]
    assert all(map(torch.equal, tables[1], tables[10]))


def test_a_resumed_checkpoint_comes_from_the_device():
    """mmengine loads it there, and a table of the host takes no classes from a device."""
    hook = GuideTableHook()
    with FakeTensorMode():
        rows, classes, table = (torch.zeros(*size, device='cuda') for size in ((2, ), (2, 4), (6, 4)))
        hook.after_load_checkpoint(None, dict(guide_table=dict(table=table, sha256='', pending=(None, rows, classes))))
        assert {tensor.device.type for tensor in (hook._loaded['table'], *hook._loaded['pending'][1:])} == {'cpu'}
        hook.after_load_checkpoint(None, dict(guide_table=dict(table=table, sha256='')))  # of an older release
        assert hook._loaded['pending'] is None


def test_load_from_takes_no_table_of_other_images(make_cfg, tmp_path):
    train(make_cfg(2))
    checkpoint = str(tmp_path / 'run/iter_2.pth')
    rows = {}
    for images in ('u', 'other'):
        runner = Runner.from_cfg(make_cfg(1, f'new_{images}', images, load_from=checkpoint))
        hook = next(h for h in runner.hooks if type(h).__name__ == 'GuideTableHook')
        check = hook.before_train
        hook.before_train = lambda r, images=images, check=check, runner=runner: (
            check(r), rows.update({images: int(runner.train_dataloader.dataset.datasets[1].table.any(1).sum())}))
        runner.train()
    assert rows == dict(u=2, other=0)  # those of the second step are still to be written


@pytest.mark.parametrize('options, error, words', [
    ({'model.min_area': 0.5}, ValueError, r'labeled set has min_area 0.03, model.min_area is 0.5: set both alike'),
    ({'model.exclude': [1]}, ValueError, r'labeled set has exclude \(0,\), model.exclude is \(1,\)'),
    ({'train_dataloader.dataset.unlabeled.index': dict(min_area=0.1)}, ValueError, 'unlabeled set has min_area 0.1'),
    ({'model.type': 'SemiEncoderDecoder', 'model.exclude': None}, TypeError, 'needs a CISCOnline, found SemiEnc'),
])
def test_parts_that_do_not_fit(make_cfg, options, error, words):
    cfg = make_cfg(1, **options)
    if options.get('model.type'):
        cfg.model.pop('exclude')
    with pytest.raises(error, match=words):
        train(cfg)


def test_unlabeled_images_without_a_table(make_cfg):
    cfg = make_cfg(1)
    cfg.train_dataloader.dataset.unlabeled = cfg.train_dataloader.dataset.unlabeled.primary
    with pytest.raises(TypeError, match=r"found \['GuidedPairDataset', 'UnlabeledDataset'\]"):
        train(cfg)


def test_the_frozen_teacher_needs_its_model(make_cfg):
    cfg = make_cfg(1)
    cfg.custom_hooks.append(dict(type='FrozenTeacherHook', checkpoint='x.pth'))
    with pytest.raises(TypeError, match='FrozenTeacherHook needs a CISCRectify, found CISCOnline'):
        train(cfg)
    assert FrozenTeacherHook('x.pth').checkpoint == 'x.pth'


def test_few_guides_are_told():
    warnings = []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=warnings.append))
    with pytest.raises(ValueError, match='interval must be >= 1, found 0'):
        GuideShareHook(interval=0)
    hook = GuideShareHook(interval=2)
    for share in (.1, .2, .3, .2, None):
        hook.after_train_iter(runner, 0, outputs={} if share is None else {'monitor.has_guide': torch.tensor(share)})
    message, = warnings
    assert 'Only 15.0% of the images had a guide over the last 2 iterations' in message
