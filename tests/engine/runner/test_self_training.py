"""The driver of self-training with real runs of a tiny network: stages, resume, references, mistakes."""
import copy
import errno
import fcntl
import gc
import json
import multiprocessing
import os
import re
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner, load_checkpoint
from mmseg.registry import METRICS, RUNNERS
from PIL import Image

from mmseg_semi.engine.runner.image_sets import MissingImages, by_images
from mmseg_semi.engine.runner.preflight import check_model
from mmseg_semi.engine.runner.pseudo_label_stage import native_pipeline, predict_probability, scaled_side
from mmseg_semi.files import write_text
from mmseg_semi.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[3]
CLASSES, PALETTE = ('a', 'b', 'c', 'd'), [[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]]
TRAIN = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=4),
         dict(type='PackSegInputs')]


@pytest.fixture
def make_plan(tiny_cfg, data_root, tmp_path):
    """Function that makes an ST plan: train, label all, train on both."""
    tiny_cfg = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'test_cfg')}

    def dataset(split):
        return dict(type='BaseSegDataset', data_root=str(data_root), img_suffix='.png', pipeline=TRAIN,
                    metainfo=dict(classes=CLASSES, palette=PALETTE),
                    data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'))

    def loader(of, **kwargs):
        return dict(dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=of),
                    **kwargs)

    def run(train, steps=4):
        one = loader(dataset('val'), batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
        return dict(
            default_scope='mmseg', custom_imports=dict(imports=['mmseg_semi']), randomness=dict(seed=0),
            model=dict(type='EncoderDecoder', **copy.deepcopy(tiny_cfg), data_preprocessor=dict(
                type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True, size=(33, 33))),
            train_dataloader=loader(train), val_dataloader=one, val_evaluator=dict(type='IoUMetric'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=2), val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2, save_best='mIoU'),
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False)))

    unlabeled = dict(data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled'))
    pseudo = dict(unlabeled, type='PseudoLabeledDataset', mask_dirs=['label:masks'], pipeline=TRAIN,
                  metainfo=dict(classes=CLASSES, palette=PALETTE))

    def make(work_dir='plan', steps=4, **options):
        stages = [
            dict(name='sup', type='TrainStage', cfg=run(dataset('train'), steps), export=[1 / 2]),
            dict(name='label', type='PseudoLabelStage', cfg='sup:config', checkpoint='sup:best', dataset=unlabeled,
                 scales=[1.0, 1.5]),
            dict(name='again', type='TrainStage', cfg=run(
                dict(type='ConcatDataset', datasets=[dataset('train'), pseudo]), steps))
        ]
        return Config(dict(runner_type='SelfTrainingRunner', work_dir=str(tmp_path / work_dir), default_scope='mmseg',
                           custom_imports=dict(imports=['mmseg_semi']), self_training=dict(stages=stages, **options)))

    return make


def train(plan):
    RUNNERS.build(plan).train()
    return Path(plan.work_dir)


def state_of(folder):
    return json.loads((folder / 'state.json').read_text())['stages']


def weights(folder, stage='again', which='last'):
    path = folder / state_of(folder)[stage]['outputs'][which]['path']
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def set_running(folder, stage):
    """As if the stage had been killed."""
    state = json.loads((folder / 'state.json').read_text())
    state['stages'][stage]['status'] = 'running'
    (folder / 'state.json').write_text(json.dumps(state))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.suffix in ('.pth', '.png')}


def test_plan_runs_once(make_plan, data_root):
    folder = train(make_plan())
    stages = state_of(folder)
    assert [stages[name]['status'] for name in ('sup', 'label', 'again')] == ['done'] * 3
    assert {'last', 'best', 'config', 'metrics', 'at_0'} == set(stages['sup']['outputs'])
    export = torch.load(folder / '01_sup' / 'at_0.pth', map_location='cpu', weights_only=False)
    assert export['meta']['iter'] == 2 and 'optimizer' not in export
    masks = folder / '02_label' / 'masks'
    manifest = [json.loads(line) for line in (masks / 'manifest.jsonl').read_text().splitlines()]
    assert [entry['id'] for entry in manifest] == ['u/0', 'u/1', 'u/2', 'v/0', 'v/1']
    assert sorted(path.relative_to(masks).as_posix() for path in masks.rglob('*.*')) == [
        'manifest.jsonl', 'u/0.png', 'u/1.png', 'u/2.png', 'v/0.png', 'v/1.png']
    before = times(folder)
    assert train(make_plan()) == folder and times(folder) == before


def test_a_training_leaves_the_memory_before_the_next_stage(make_plan, monkeypatch):
    made, alive, build = [], [], Runner.from_cfg

    def from_cfg(cfg):
        alive.append([reference() is not None for reference in made])
        runner = build(cfg)
        made.append(weakref.ref(runner.model))
        return runner

    monkeypatch.setattr(Runner, 'from_cfg', from_cfg)
    gc.disable()
    try:
        train(make_plan(steps=2))
    finally:
        gc.enable()
    assert alive == [[], [False]]


def test_loaders_of_a_distributed_plan_fork_their_workers(make_plan, monkeypatch):
    class Joined(Exception):
        pass

    def join(launcher, **options):
        raise Joined(launcher, options, multiprocessing.get_start_method(allow_none=True))

    monkeypatch.setattr('mmseg_semi.engine.runner.self_training.init_dist', join)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):  # set where they are not
        monkeypatch.setenv(name, '1')
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        with pytest.raises(Joined) as joined:
            train(Config(dict(make_plan(), launcher='pytorch')))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert joined.value.args == ('pytorch', {}, 'fork')


def test_scalars_of_a_training_lie_in_its_own_folder(make_plan):
    """Also if the configs name their visualizer, as configs/_base_/default_runtime.py does."""
    plan = make_plan(steps=2)
    change_trainings(plan, {'visualizer': dict(type='SegLocalVisualizer', name='visualizer',
                                               vis_backends=[dict(type='LocalVisBackend')])})
    folder = train(plan)
    for stage in ('01_sup', '03_again'):
        path, = (folder / stage).glob('*/vis_data/scalars.json')
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [record['step'] for record in records if 'loss' in record] == [1, 2]
        assert [record['step'] for record in records if 'mIoU' in record] == [2]


def test_the_log_of_a_plan_holds_all_its_starts_and_stages(make_plan):
    folder = train(make_plan(steps=2, until='sup'))
    train(make_plan(steps=2))
    train(make_plan(steps=2))
    log = (folder / 'self_training.log').read_text()
    assert log.count('Stage 1 of 3, sup: starts') == 1 and log.count('Stage 1 of 3, sup: done before, skipped') == 2
    told = f'{folder}/02_label/masks: 5 images, 0 done before.'
    assert log.count(told) == 1 and log.count('Stage 3 of 3, again: ') == 2
    assert not [path for path in folder.glob('0*/*/*.log') if told in path.read_text()]


def test_a_stage_that_failed_is_told_and_gone_on_with(make_plan, data_root):
    bad = data_root / 'img/unlabeled/v/0.png'
    good = bad.read_bytes()
    bad.write_bytes(b'no image')
    with pytest.raises(ValueError, match='failed to load image'):
        train(make_plan(steps=2, until='label'))
    folder = bad.parents[4] / 'plan'
    entry = state_of(folder)['label']
    assert entry['status'] == 'failed' and entry['error'] == f'ValueError: failed to load image: {bad}'
    bad.write_bytes(good)
    before = times(folder)
    train(make_plan(steps=2, until='label'))
    now = state_of(folder)['label']
    assert now['status'] == 'done' and 'error' not in now and now['seconds'] >= entry['seconds']
    assert 'Stage 2 of 3, label: goes on' in (folder / 'self_training.log').read_text()
    assert len(before) > 3 and all(times(folder)[path] == t for path, t in before.items())


def test_what_became_of_a_plan(make_plan):
    """A table at its end, the scores of each training, and the plan with what the command line has changed."""
    folder = train(make_plan())
    for stage in ('01_sup', '03_again'):
        log = '\n'.join(path.read_text() for path in (folder / stage).glob('*/*.log'))
        found = [float(value) for value in re.findall(r'mIoU: ([\d.]+)  mAcc', log)]
        scores = json.loads((folder / stage / 'metrics.json').read_text())['mIoU']
        assert len(found) == 2 and (scores['last'], scores['best']) == pytest.approx((found[-1], max(found)), abs=0.01)
    table = (folder / 'self_training.log').read_text().rpartition('The plan:\n')[2].splitlines()
    assert [line.split()[:2] for line in table] == [
        ['stage', 'status'], ['sup', 'done'], ['label', 'done'], ['again', 'done']]
    assert table[3].split()[3:] == [f'{scores[which]:.2f}' for which in ('last', 'best')]
    assert table[2].split()[3:] == ['-', '-']
    plan = Config.fromfile(folder / 'plan.py')
    assert plan.self_training.stages[1].scales == [1.0, 1.5] and not list(folder.glob('.*'))
    (folder / '01_sup/metrics.json').unlink()
    train(make_plan())  # made again from the checkpoint
    assert json.loads((folder / '01_sup/metrics.json').read_text())['mIoU'].keys() == {'last', 'best'}


def test_masks_equal_a_slow_ensemble(make_plan, data_root):
    folder = train(make_plan(until='label'))
    assert 'again' not in state_of(folder)
    cfg = Config.fromfile(folder / '01_sup' / 'config.py')
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(folder / state_of(folder)['sup']['outputs']['best']['path']), map_location='cpu')
    model.eval()
    for key in ('u/1', 'v/0'):
        image = cv2.imread(str(data_root / 'img/unlabeled' / f'{key}.png'))
        x = (torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() - 127) / 64
        total = torch.zeros(4, 33, 33)
        for size in (33, 49):
            for flip in (False, True):
                y = torch.nn.functional.interpolate(x, (size, size), mode='bilinear', align_corners=False)
                y = y.flip(3) if flip else y
                with torch.no_grad():
                    logits = model.decode_head(model.extract_feat(y))
                logits = torch.nn.functional.interpolate(logits, (size, size), mode='bilinear', align_corners=True)
                p = torch.nn.functional.interpolate(logits.softmax(1), (33, 33), mode='bilinear', align_corners=True)[0]
                total += p.flip(2) if flip else p
        mask = Image.open(folder / '02_label' / 'masks' / f'{key}.png')
        assert mask.mode == 'P' and mask.getpalette()[:12] == sum(PALETTE, [])
        label = np.array(mask)
        assert (label == total.argmax(0).numpy()).mean() > 0.999
        torch.testing.assert_close(predict_probability(model, x, (1.0, 1.5), True)[0], total / 4, atol=1e-5, rtol=1e-4)
        entry = next(json.loads(line) for line in (folder / '02_label/masks/manifest.jsonl').open() if key in line)
        assert entry['size'] == [33, 33] and entry['histogram'] == np.bincount(label.ravel(), minlength=4).tolist()


@pytest.mark.parametrize('spoil', [
    lambda path: path.write_bytes(path.read_bytes()[:50]),
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b'x'),
    lambda path: path.unlink(),
])
def test_a_damaged_mask_is_made_again_and_nothing_else(make_plan, spoil):
    """Of a stage that is done; its manifest is whole."""
    folder = train(make_plan(steps=2, until='label'))
    masks = folder / '02_label' / 'masks'
    manifest, before, content = masks / 'manifest.jsonl', times(folder), (masks / 'u/1.png').read_bytes()
    lines = manifest.read_text()
    spoil(masks / 'u/1.png')
    (masks / 'v' / '.0.png.1.part.png').write_bytes(b'half')
    (folder / '.state.json.1.part.json').write_bytes(b'half')
    train(make_plan(steps=2, until='label'))
    assert (masks / 'u/1.png').read_bytes() == content and manifest.read_text() == lines
    assert not list(folder.rglob('*.part*')) and state_of(folder)['label']['status'] == 'done'
    assert {path for path, t in times(folder).items() if before[path] != t} == {masks / 'u/1.png'}
    assert '1 of 5 files in' in (folder / 'self_training.log').read_text()


@pytest.mark.parametrize('spoil', [lambda path: path.write_text(''), lambda path: path.unlink()])
def test_a_lost_manifest_is_made_again(make_plan, spoil):
    folder = train(make_plan(steps=2, until='label'))
    manifest = folder / '02_label' / 'masks' / 'manifest.jsonl'
    lines = manifest.read_text()
    spoil(manifest)
    train(make_plan(steps=2, until='label'))
    assert manifest.read_text() == lines and state_of(folder)['label']['status'] == 'done'


def test_changed_settings_are_told_and_redone_on_request(make_plan, capfd):
    folder = train(make_plan(steps=2))
    changed = make_plan(steps=2)
    changed.self_training.stages[1].scales = [0.1]
    before = times(folder)
    with pytest.raises(ValueError, match=r"stage label .* made with other settings \(scales: .*1.5\] -> \[0.1\]"):
        train(copy.deepcopy(changed))
    assert times(folder) == before
    changed.self_training.on_stale = 'rerun'
    old = state_of(folder)
    dry = copy.deepcopy(changed)
    dry.self_training.dry_run = True
    capfd.readouterr()
    train(dry)
    told = ''.join(capfd.readouterr())
    assert 'made with other settings' in told and 'knows nothing' not in told and times(folder) == before
    train(changed)
    new = state_of(folder)
    assert new['sup'] == old['sup'] and new['label']['fingerprint'] != old['label']['fingerprint']
    # What was trained on the masks is redone if they came out otherwise, and only then.
    others = new['label']['outputs']['masks']['digest'] != old['label']['outputs']['masks']['digest']
    redone = {path.relative_to(folder).parts[0] for path, t in times(folder).items() if before.get(path) != t}
    assert redone == {'02_label', '03_again'} if others else redone == {'02_label'}
    assert (new['again']['fingerprint'] != old['again']['fingerprint']) == others


def test_what_depends_on_a_changed_stage_is_redone(make_plan):
    folder = train(make_plan(steps=2))
    old, before = state_of(folder), times(folder)
    changed = make_plan(steps=2, on_stale='rerun')
    changed.self_training.stages[0].cfg.randomness.seed = 1
    train(changed)
    new = state_of(folder)
    assert new['sup']['outputs']['last']['digest'] != old['sup']['outputs']['last']['digest']
    assert all(new[name]['fingerprint'] != old[name]['fingerprint'] for name in ('sup', 'label'))
    assert all(times(folder)[path] != t for path, t in before.items() if '03_again' not in str(path))


def test_a_moved_work_dir_is_still_done(make_plan):
    folder = train(make_plan(steps=2, until='label'))
    shutil.move(folder, folder.with_name('moved'))
    before = times(folder.with_name('moved'))
    train(make_plan('moved', steps=2, until='label'))
    assert times(folder.with_name('moved')) == before


def test_dry_run_touches_nothing(make_plan):
    plan = make_plan(dry_run=True)
    folder = train(plan)
    assert not (folder / 'state.json').exists() and not list(folder.glob('0*'))


@pytest.mark.parametrize('change, error, words', [
    (lambda p: p.stages[1].update(checkpoint='sup:worst'), ValueError, "'sup:worst' does not exist; stage sup makes"),
    (lambda p: p.stages[0].update(cfg_options=dict(x='label:masks')), ValueError, 'must come from an earlier stage'),
    (lambda p: p.stages[1].update(name='sup'), ValueError, "two stages are named 'sup'"),
    (lambda p: p.stages[1].update(name='no good'), ValueError, r"stages\[1\].name must be a word .* 'no good'"),
    (lambda p: p.stages[1].update(type='Train'), ValueError, "stage label: no stage of type 'Train'; there are"),
    (lambda p: p.update(untill='sup'), ValueError, r"unknown settings \['untill'\]"),
    (lambda p: p.update(until='end'), ValueError, "until='end' is no stage; there are sup, label, again"),
    (lambda p: p.update(start='again', until='sup'), ValueError,
     "start='again' comes after until='sup', so nothing would run; the stages are sup, label, again"),
    (lambda p: p.update(on_stale='ask'), ValueError, "on_stale must be 'error' or 'rerun', found 'ask'"),
    (lambda p: p.update(start='again'), ValueError, "start='again', but stage sup before it is not done"),
    (lambda p: p.stages[0].update(export=[1.5]), ValueError, r'export must hold fractions in \(0, 1\), found \[1.5\]'),
    (lambda p: p.stages[0].update(export=[0.5, 0.6]), ValueError, r'are the iterations \[2, 2\]; expected different'),
    (lambda p: p.stages[1].update(scales=[0]), ValueError, r'stage label: .*scales must be positive .*, found \[0\]'),
    (lambda p: p.stages[1].update(scale=[1]), ValueError, "stage label: .*unexpected keyword argument 'scale'"),
    (lambda p: p.stages[0].update(cfg='none.py'), ValueError, 'stage sup: .*none.py'),
    (lambda p: p.stages[0].cfg.default_hooks.checkpoint.update(by_epoch=True), ValueError,
     r'stage sup: TrainStage needs default_hooks.checkpoint.by_epoch=False, found True; its iter_\*.pth are what'),
    (lambda p: p.stages[2].cfg.default_hooks.checkpoint.pop('by_epoch'), ValueError, 'by_epoch=False, found True'),
    (lambda p: p.stages[2].cfg.default_hooks.pop('checkpoint'), ValueError, 'by_epoch=False, found True'),
    (lambda p: p.stages[2].cfg.default_hooks.update(checkpoint=None), ValueError,
     'default_hooks.checkpoint, found None'),
    (lambda p: p.stages[0].cfg.default_hooks.checkpoint.update(filename_tmpl='{}.pth'), ValueError,
     r"default_hooks.checkpoint.filename_tmpl=None, found '\{\}.pth'"),
    (lambda p: p.stages[0].cfg.default_hooks.checkpoint.update(out_dir='out'), ValueError, "out_dir=None, found 'out'"),
    (lambda p: p.stages[0].cfg.default_hooks.checkpoint.update(save_last=False, interval=3), ValueError,
     'default_hooks.checkpoint.save_last=True, found False'),
])
def test_mistakes_are_found_before_training(make_plan, change, error, words):
    plan = make_plan()
    change(plan.self_training)
    with pytest.raises(error, match=words):
        train(plan)
    assert not list(Path(plan.work_dir).glob('0*'))


@pytest.mark.parametrize('dry_run', [True, False])
@pytest.mark.parametrize('change, words', [
    (lambda p, root: shutil.rmtree(root / 'img/unlabeled'), 'stage label: dataset: folder not found: .*img/unlabeled'),
    (lambda p, root: [path.unlink() for path in root.glob('img/unlabeled/*/*')],
     'stage label: dataset: no unlabeled image in folder .*img/unlabeled'),
    (lambda p, root: shutil.rmtree(root / 'img/val'), r'stage sup: val_dataloader.dataset: .*img/val is not there'),
    (lambda p, root: [path.unlink() for path in root.glob('img/train/*')],
     r'stage sup: train_dataloader.dataset: there is no image in .*img/train; expected at least one'),
    (lambda p, root: (write_text(root / 'twice.txt', 'u/0.png\nu/1.png\nu/0.png\n'),
                      p.stages[1].dataset.update(ann_file='twice.txt')),
     r'stage label: dataset: .*: u/0.png and u/0.png would share the mask u/0.png; list each image once'),
    (lambda p, root: (p.stages[1].dataset.pop('data_prefix'),
                      p.stages[1].dataset.update(folders=[dict(path='img/unlabeled', weight=3)])),
     r"stage label: dataset.folders: \{'path': 'img/unlabeled', 'weight': 3\} has a weight; expected folders without"),
    (lambda p, root: p.stages[2].cfg.train_dataloader.dataset.datasets[1].update(data_prefix=dict(img_path='img')),
     'stage again: train_dataloader.dataset.datasets.0 and train_dataloader.dataset.datasets.1: 4 images are both '
     'labeled and pseudo-labeled, such as .*; take them out'),
    (lambda p, root: p.stages[0].cfg.model.decode_head.update(num_classes=256),
     r'stage label: cfg: sup:config has decode_head.num_classes=256; expected 2..255'),
])
def test_bad_input_is_found_before_training(make_plan, data_root, change, words, dry_run):
    plan = make_plan(dry_run=dry_run)
    change(plan.self_training, data_root)
    with pytest.raises(ValueError, match=words):
        train(plan)
    assert not list(Path(plan.work_dir).glob('0*'))


@pytest.mark.parametrize('backbone', ['MixVisionTransformer', 'ResNetV1c'])
def test_backbones_are_built_before_training(backbone):
    """Without weights; those that need some as they are built are built with them."""
    options = dict(MixVisionTransformer=dict(embed_dims=8, num_layers=[1] * 4, drop_path_rate=0.1),
                   ResNetV1c=dict(depth=18, base_channels=8, stem_channels=8))[backbone]
    head = dict(type='FCNHead', in_channels=64, channels=64, num_classes=3, num_convs=0, concat_input=False)
    cfg = Config(dict(model=dict(type='EncoderDecoder', backbone=dict(type=backbone, **options), decode_head=head)))
    before = copy.deepcopy(cfg.to_dict())
    check_model(cfg)
    assert cfg.to_dict() == before
    cfg.model.backbone.depht = 18
    with pytest.raises(ValueError, match="^model: .*unexpected keyword argument 'depht'"):
        check_model(cfg)


def test_one_process_at_a_time(make_plan, tmp_path):
    (tmp_path / 'plan').mkdir()
    fork = multiprocessing.get_context('fork')
    locked, done = fork.Event(), fork.Event()

    def hold():
        with open(tmp_path / 'plan' / 'lock', 'w') as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            locked.set()
            done.wait(60)

    process = fork.Process(target=hold)
    process.start()
    assert locked.wait(60)
    try:
        with pytest.raises(ValueError, match='is in use by another process'):
            train(make_plan())
    finally:
        done.set()
        process.join()
    assert train(make_plan(until='sup', steps=2))  # nobody holds it now


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_file_systems_without_locks(make_plan, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'lockf', fail)
    plan = make_plan(dry_run=True)
    if number == errno.EIO:
        with pytest.raises(OSError, match='Input/output'):
            train(plan)
        return
    log = (train(plan) / 'self_training.log').read_text()
    assert f'has no locks ({os.strerror(number)}): start no second process' in log and 'Stage 1 of 3' in log


def test_overlay_of_masks(data_root, tmp_path):
    for folder, names in (('new', ['u/1']), ('old', ['u/0', 'u/1', 'u/2', 'v/0', 'v/1'])):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((33, 33), folder == 'new', np.uint8)).save(tmp_path / folder / f'{name}.png')
    cfg = dict(type='PseudoLabeledDataset', data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled'),
               mask_dirs=[str(tmp_path / 'new'), str(tmp_path / 'old')], pipeline=TRAIN)
    dataset = DATASETS.build(cfg)
    assert [int(dataset[i]['data_samples'].gt_sem_seg.data.max()) for i in range(5)] == [0, 1, 0, 0, 0]
    (tmp_path / 'old' / 'v/1.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'no pseudo-label of .*v/1.png: looked for .*new/v/1.png'):
        DATASETS.build(cfg)


def test_state_of_another_version(make_plan, tmp_path):
    write_text(tmp_path / 'plan' / 'state.json', json.dumps(dict(version=1, stages={})))
    with pytest.raises(ValueError, match='has version 1, expected 3: .* finish it with that release, or give another'):
        train(make_plan())
    assert json.loads((tmp_path / 'plan' / 'state.json').read_text()) == dict(version=1, stages={})


@pytest.mark.parametrize('content', ['{"version": 3, "stages": {"sup"', '{"version": 3}', '[]'])
def test_a_damaged_state_is_told_by_its_name(make_plan, tmp_path, content):
    write_text(tmp_path / 'plan' / 'state.json', content)
    with pytest.raises(ValueError, match=r'plan/state.json cannot be read \(.*\); expected JSON .*another work_dir'):
        train(make_plan())
    assert (tmp_path / 'plan' / 'state.json').read_text() == content


# ---- which images a set holds -----------------------------------------------------------------------------------


@pytest.fixture
def lists(data_root, make_plan):
    """The list files of a plan that labels and trains by lists, and the function that makes it."""
    lists = dict(labeled=data_root / 'labeled.txt', unlabeled=data_root / 'unlabeled.txt')
    lists['labeled'].write_text('0\n1\n2\n')
    lists['unlabeled'].write_text('u/0.png\nu/1.png\nv/0.png\n')

    def make(**options):
        plan = make_plan(**options)
        sup, label, again = plan.self_training.stages
        labeled, pseudo = again.cfg.train_dataloader.dataset.datasets
        for dataset in (sup.cfg.train_dataloader.dataset, labeled):
            dataset.ann_file = 'labeled.txt'
        for dataset in (label.dataset, pseudo):
            dataset.ann_file = 'unlabeled.txt'
        return plan

    lists['make'] = make
    return lists


@pytest.mark.parametrize('name, line, words', [
    ('labeled', '3', r'stage sup in .* \(train_dataloader.dataset.images.count: 3 -> 4; '),
    ('unlabeled', 'v/1.png', r'stage label in .* \(dataset.images.count: 3 -> 4; '),
])
def test_an_edited_list_is_told(lists, name, line, words):
    folder = train(lists['make'](steps=2, until='label'))
    before, text = times(folder), lists[name].read_text()
    lists[name].write_text('\n'.join(reversed(text.split())))  # the order is not what counts
    train(lists['make'](steps=2, until='label'))
    lists[name].write_text(f'{text}{line}\n')
    with pytest.raises(ValueError, match=words):
        train(lists['make'](steps=2, until='label'))
    assert times(folder) == before


@pytest.mark.parametrize('mask, words', [
    ('ann/train/2.png', r'stage sup in .* \(train_dataloader.dataset.images.masks_sha256: '),
    ('ann/val/1.png', r'stage sup in .* \(val_dataloader.dataset.images.masks_sha256: '),
])
def test_a_mended_label_is_told(make_plan, data_root, mask, words):
    folder = train(make_plan(steps=2, until='sup'))
    before, path = times(folder), data_root / mask
    os.utime(path, (1, 1))  # copied, with what was in it
    train(make_plan(steps=2, until='sup'))
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[5, 7] = 3 - label[5, 7]
    cv2.imwrite(str(path), label)
    with pytest.raises(ValueError, match=words):
        train(make_plan(steps=2, until='sup'))
    assert times(folder) == before


@pytest.mark.parametrize('wrong', [b'', None])
def test_a_failed_stage_goes_on_with_a_mended_label(make_plan, data_root, wrong):
    path = data_root / 'ann' / 'train' / '2.png'
    right = path.read_bytes()
    path.unlink()
    path.write_bytes(wrong) if wrong is not None else path.mkdir()  # neither is an image
    with pytest.raises(Exception):  # noqa: B017 (what the reader of images says)
        train(make_plan(steps=4, until='sup'))
    assert state_of(data_root.parent / 'plan')['sup']['status'] == 'failed'
    path.unlink() if wrong is not None else path.rmdir()
    path.write_bytes(right)
    assert state_of(train(make_plan(steps=4, until='sup')))['sup']['status'] == 'done'


def test_labels_that_only_exclude_do_not_count(lists, data_root):
    validation = dict(type='BaseSegDataset', data_root=str(data_root), img_suffix='.png', pipeline=[],
                      data_prefix=dict(img_path='img/val', seg_map_path='ann/val'))
    unlabeled = dict(lists['make']().self_training.stages[1].dataset, type='UnlabeledDataset',
                     exclude_sets=[validation])
    before = by_images(dict(set=unlabeled), ())
    (data_root / 'ann/val/1.png').write_bytes(b'')
    assert by_images(dict(set=unlabeled), ()) == before != by_images(dict(set=[unlabeled, validation]), ())
    assert 'masks_sha256' not in str(before) and 'masks_sha256' in str(by_images(validation, ()))


def test_a_list_of_an_earlier_stage_counts_by_its_content(lists, data_root):
    reliable = str(data_root / 'unlabeled.txt')
    pseudo = dict(lists['make']().self_training.stages[2].cfg.train_dataloader.dataset.datasets[1], ann_file=reliable)
    assert set(by_images(dict(pseudo), {reliable})) == {*pseudo} - {'data_root'}
    assert by_images(dict(pseudo), ())['images']['count'] == 3  # the masks need not be there


def change_trainings(plan, change):
    """Merges into the configs of both trainings."""
    for i in (0, 2):
        plan.merge_from_dict({f'self_training.stages.{i}.cfg.{key}': value for key, value in change.items()})


def test_how_a_plan_is_run_and_where_its_data_lie_is_no_setting(make_plan, data_root):
    """A plan on more workers, that logs less, on another disk: all is done."""
    folder = train(make_plan(steps=2))
    before, moved = times(folder), data_root.with_name('moved')
    shutil.move(data_root, moved)
    plan = make_plan(steps=2)
    change_trainings(plan, {
        'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True,
        'val_dataloader.prefetch_factor': 4, 'default_hooks.logger.interval': 50, 'log_level': 'ERROR',
        'test_dataloader': dict(dataset=dict(type='BaseSegDataset', data_root='nowhere')),
        'data_root': str(moved), 'visualizer': dict(type='SegLocalVisualizer')})
    plan = Config(json.loads(json.dumps(plan.to_dict()).replace(str(data_root), str(moved))))
    train(plan)
    assert times(folder) == before


@pytest.mark.parametrize('change, words', [
    ({'train_dataloader.batch_size': 1}, r'train_dataloader.batch_size: 2 -> 1'),
    ({'sync_bn': 'torch'}, "sync_bn: None -> 'torch'"),
    ({'default_hooks.checkpoint.save_best': None}, r"default_hooks.checkpoint.save_best: 'mIoU' -> None"),
    ({'val_dataloader.dataset.data_prefix.seg_map_path': 'ann/train'}, r"seg_map_path: 'ann/val' -> 'ann/train'"),
])
def test_what_is_trained_is_a_setting(make_plan, change, words):
    train(make_plan(steps=2, until='sup'))
    plan = make_plan(steps=2, until='sup')
    change_trainings(plan, change)
    with pytest.raises(ValueError, match=words):
        train(plan)


def test_no_image_is_opened_to_list_it(lists, data_root):
    for path in data_root.rglob('*.png'):
        path.write_bytes(b'')
    _, label, again = lists['make']().to_dict()['self_training']['stages']
    settings = by_images([dict(label['dataset'], type='UnlabeledDataset'), again['cfg']], ())
    assert str(settings).count("'sha256'") == 1 + 3  # the last training has three sets
    assert str(settings).count("'masks_sha256'") == 2


def test_a_validation_that_was_missed_is_made_up_for(make_plan):
    """Killed between the checkpoint and the validation of iteration 2, which is the best one."""
    whole = train(make_plan('whole', until='sup'))
    best = state_of(whole)['sup']['outputs']['best']
    folder = train(make_plan('cut', until='sup')) / '01_sup'
    for path in folder.glob('*.pth'):
        path.unlink()
    shutil.copy(whole / '01_sup' / 'at_0.pth', folder / 'at_0.pth')
    runner = RUNNERS.build(make_plan('two', until='sup'))
    runner.stages[0]['cfg']['train_cfg'].update(max_iters=3, val_interval=100)  # none at 2
    runner.stages[0]['export'] = []
    runner.train()
    shutil.copy(runner.work_dir / '01_sup' / 'iter_2.pth', folder / 'iter_2.pth')
    set_running(folder.parent, 'sup')
    train(make_plan('cut', until='sup'))
    again = state_of(folder.parent)['sup']['outputs']['best']
    assert (Path(again['path']).name == Path(best['path']).name) and len(list(folder.glob('best_*.pth'))) == 1


def test_a_lost_best_checkpoint_is_made_again_on_request(make_plan):
    """Another one, such as the last, would label other masks without a word."""
    folder = train(make_plan(until='sup'))
    before = weights(folder, 'sup', 'best')
    (folder / state_of(folder)['sup']['outputs']['best']['path']).unlink()
    train(make_plan(until='sup', on_stale='rerun'))
    assert 'best_' in state_of(folder)['sup']['outputs']['best']['path']
    after = weights(folder, 'sup', 'best')
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@METRICS.register_module()
class ConstantMIoU(BaseMetric):
    """Gives the same mIoU after every validation."""

    def __init__(self, value):
        super().__init__()
        self.value = float(value)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(mIoU=self.value)


@pytest.mark.parametrize('value, best', [('nan', 'iter_4.pth'), (0, 'best_mIoU_iter_2.pth')])
def test_there_is_a_best_checkpoint_whatever_validation_says(make_plan, value, best):
    """CISC-R specification, section 11: mIoU 0 or NaN all along."""
    plan = make_plan(until='label')
    plan.self_training.stages[0].cfg.val_evaluator = dict(type='ConstantMIoU', value=value)
    folder = train(plan)
    assert state_of(folder)['sup']['outputs']['best']['path'] == f'01_sup/{best}'
    assert state_of(folder)['label']['status'] == 'done'
    told = [log for log in (folder / '01_sup').rglob('*.log') if 'validation named no best' in log.read_text()]
    assert bool(told) == (value == 'nan')


def test_a_best_checkpoint_that_is_cut_off_is_not_taken(make_plan):
    """Killed while it saved the best one, and the resumed training found another best, or none."""
    folder = train(make_plan(until='sup'))
    best = folder / '01_sup' / 'best_mIoU_iter_1.pth'
    best.write_bytes((folder / state_of(folder)['sup']['outputs']['last']['path']).read_bytes()[:1000])
    os.utime(best, (2e9, 2e9))
    set_running(folder, 'sup')
    with pytest.raises(ValueError, match=r'best_mIoU_iter_1.pth is cut off.* Delete .*01_sup to train this stage anew'):
        train(make_plan(until='sup'))
    assert state_of(folder)['sup']['status'] == 'failed' and best.is_file()


def test_more_classes_than_a_mask_holds_are_refused(make_plan):
    """Also where the plan does not tell: by the stage, from the model."""
    folder = train(make_plan(steps=2, until='sup'))
    cfg = Config.fromfile(folder / '01_sup' / 'config.py')
    cfg.model.decode_head.num_classes = 256
    cfg.dump(str(folder / 'many.py'))
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'many.pth')
    plan = make_plan(steps=2, until='label')
    plan.self_training.stages[1].update(cfg=str(folder / 'many.py'), checkpoint=str(folder / 'many.pth'))
    with pytest.raises(ValueError, match='many.py has 256 classes; expected 2..255, as a mask has 8 bits'):
        train(plan)
    assert not list((folder / '02_label').rglob('*.png'))


@pytest.mark.parametrize('cfg', [
    dict(ann_file='select:reliable'), dict(exclude=['a.txt', 'select:reliable']),
    dict(exclude_sets=[dict(type='UnlabeledDataset', ann_file='select:reliable')]),
    dict(type='FolderDataset', data_prefix=dict(img_path='a', seg_map_path='select:reliable'))])
def test_a_set_that_waits_for_an_earlier_stage_is_not_listed(cfg):
    cfg = dict(dict(type='UnlabeledDataset', data_root='no such folder', data_prefix=dict(img_path='a')), **cfg)
    assert by_images(cfg, {'select:reliable'}) == {name: cfg[name] for name in cfg if name != 'data_root'}
    masks = dict(type='PseudoLabeledDataset', data_prefix=dict(img_path='none'), mask_dirs=['select:reliable'])
    with pytest.raises(MissingImages, match='^key: folder not found: none'):
        by_images(masks, {'select:reliable'}, 'key')


@pytest.mark.parametrize('lost', ['at_0.pth', 'iter_2.pth'])
def test_nothing_is_deleted_without_consent(make_plan, lost):
    """A checkpoint that only its user misses, or does not, is no reason to throw a training away, or to repeat it."""
    folder = train(make_plan(steps=2, until='label'))
    (folder / '01_sup' / lost).unlink()
    before, state = times(folder), state_of(folder)
    asks = rf'stage sup in .* has lost .*01_sup/{lost} is gone.*--on-stale rerun'
    not_run = f"start='label', but stage sup before it has lost .*{lost} is gone"
    start = dict(start='label', on_stale='rerun')
    for options, words in ((dict(), asks), (dict(dry_run=True), asks), (start, not_run)):
        with pytest.raises(ValueError, match=words):
            train(make_plan(steps=2, until='label', **options))
        assert times(folder) == before and state_of(folder) == state
    train(make_plan(steps=2, until='label', on_stale='rerun', dry_run=True))
    assert times(folder) == before and state_of(folder) == state
    train(make_plan(steps=2, until='label', on_stale='rerun'))
    assert (folder / '01_sup' / lost).is_file() and state_of(folder)['sup']['status'] == 'done'


@pytest.mark.parametrize('until', ['sup', 'label'])
def test_a_folder_that_the_state_does_not_know_is_not_trusted(make_plan, until):
    """Its checkpoints and masks may be of any settings."""
    folder = train(make_plan(steps=2, until=until))
    state = json.loads((folder / 'state.json').read_text())
    state['stages'].pop(until)
    (folder / 'state.json').write_text(json.dumps(state))
    before, stage = times(folder), dict(sup='01_sup', label='02_label')[until]
    words = rf'stage {until} in {folder}/{stage} holds files, but state.json knows nothing .* move .*--on-stale rerun'
    for options in (dict(), dict(dry_run=True)):
        with pytest.raises(ValueError, match=words):
            train(make_plan(steps=2, until=until, **options))
    train(make_plan(steps=2, until=until, on_stale='rerun', dry_run=True))
    assert times(folder) == before
    train(make_plan(steps=2, until=until, on_stale='rerun'))
    now = times(folder)
    assert {path for path, t in before.items() if now[path] != t} == {path for path in before if stage in str(path)}
    shutil.move(folder / stage, folder / 'kept')
    (folder / stage).mkdir()  # as a stage that was killed before it made anything
    (folder / 'state.json').write_text(json.dumps(state))
    train(make_plan(steps=2, until=until))
    assert state_of(folder)[until]['status'] == 'done'


def test_a_folder_that_cannot_be_deleted_is_told(make_plan, monkeypatch):
    folder = train(make_plan(steps=2, until='sup'))

    def fail(path, *args, **kwargs):
        if not kwargs.get('ignore_errors', args and args[0]):
            raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(shutil, 'rmtree', fail)
    with pytest.raises(ValueError, match='stage sup: cannot delete .*01_sup: .*Permission denied.* by hand'):
        train(make_plan(steps=3, until='sup', on_stale='rerun'))
    assert state_of(folder)['sup']['status'] == 'done'


def test_a_stage_runs_alone(make_plan):
    """One that was thrown away, with what the stages before it made; none of the others is touched."""
    folder = train(make_plan(steps=2))
    made = {path.name: path.read_bytes() for path in (folder / '02_label').rglob('*.*')}
    before, state = times(folder), json.loads((folder / 'state.json').read_text())
    shutil.rmtree(folder / '02_label')
    old = state['stages'].pop('label')
    (folder / 'state.json').write_text(json.dumps(state))
    train(make_plan(steps=2, start='label', until='label'))
    assert {path.name: path.read_bytes() for path in (folder / '02_label').rglob('*.*')} == made
    assert {**state_of(folder), 'label': None} == {**state['stages'], 'label': None}
    assert state_of(folder)['label']['outputs'] == old['outputs']
    assert {path.parts[-4] for path, t in times(folder).items() if before[path] != t} == {'02_label'}
    shutil.rmtree(folder / '02_label' / 'masks')  # its entry stays
    train(make_plan(steps=2, start='label', until='label'))
    assert {path.name: path.read_bytes() for path in (folder / '02_label').rglob('*.*')} == made


def test_a_plan_of_one_stage_on_a_checkpoint_of_ones_own(make_plan, data_root, tmp_path):
    """The example of docs/self_training.md."""
    page = (ROOT / 'docs/self_training.md').read_text()
    text = page.split('```python\n')[1].split('```')[0]
    folder = train(make_plan(steps=2, until='label'))
    for mine, ours in (('my.py', '01_sup/config.py'), ('my.pth', '01_sup/iter_2.pth')):
        shutil.copy(folder / ours, tmp_path / mine)
        text = text.replace(f"'{mine}'", f"'{tmp_path / mine}'")
    (tmp_path / 'label.py').write_text(text.replace('data/mine', str(data_root)).replace('images', 'img/unlabeled'))
    plan = Config.fromfile(tmp_path / 'label.py')
    plan.work_dir = str(tmp_path / 'alone')
    assert len(text.splitlines()) <= 8
    masks = train(plan) / '01_label' / 'masks'
    assert sorted(path.relative_to(masks).as_posix() for path in masks.rglob('*.png')) == [
        'u/0.png', 'u/1.png', 'u/2.png', 'v/0.png', 'v/1.png']


def test_a_stopped_stage_resumes_from_its_own_checkpoint(make_plan):
    start = train(make_plan('start', until='sup')) / '01_sup' / 'iter_4.pth'

    def plan(work_dir):
        plan = make_plan(work_dir, until='sup')
        plan.self_training.stages[0].cfg.load_from = str(start)
        return plan

    whole, cut = train(plan('whole')), train(plan('cut'))
    for path in (cut / '01_sup').glob('iter_4.pth'):
        path.unlink()
    set_running(cut, 'sup')
    train(plan('cut'))
    ours, theirs = weights(whole, 'sup'), weights(cut, 'sup')
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_images_are_read_as_the_training_set_reads_them():
    bands = dict(type='LoadBands', value_range=(0, 10000))
    labeled = dict(type='BaseSegDataset', pipeline=[bands, dict(type='LoadAnnotations')])
    for dataset in (labeled, dict(type='SemiDataset', labeled=labeled, unlabeled=dict(pipeline=[])),
                    dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=labeled)])):
        assert native_pipeline(dict(train_dataloader=dict(dataset=dataset))) == [bands, dict(type='PackSegInputs')]
    assert native_pipeline(None)[0] == native_pipeline(dict())[0] == dict(type='LoadImageFromFile')


def test_other_scales_keep_the_multiple_of_the_pipeline():
    assert [scaled_side(378, scale, 14) for scale in (0.5, 0.75, 1.0, 1.5)] == [196, 280, 378, 560]
    assert scaled_side(375, 0.5, 1) == 187 and scaled_side(14, 0.01, 14) == 14
