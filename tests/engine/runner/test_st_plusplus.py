"""ST++ from its base config, with real runs of a tiny network: what stages make, ranks, kills, Ctrl-C, mistakes."""
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS
from PIL import Image

from mmseg_semi.engine.cpu import adapt
from mmseg_semi.engine.runner import map_agreement
from mmseg_semi.engine.runner.pseudo_label_stage import load_trained, predict_label
from mmseg_semi.registry import DATASETS

ROOT = Path(__file__).resolve().parents[3]
META = dict(classes=('a', 'b', 'c', 'd'), palette=[[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]])
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=4)]
PACK = [dict(type='PackSegInputs')]
STRONG = dict(type='StrongAugment', augments=[dict(type='ColorJitter'), dict(type='Cutout')])
STAGES = ['01_sup', '02_select', '03_label_reliable', '04_reliable', '05_label_unreliable', '06_all']


@pytest.fixture
def make_plan(tiny_cfg, data_root, tmp_path):
    """Function that makes a plan of the base config on the tiny data."""
    model = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'test_cfg')}

    def labeled(split):
        return dict(type='BaseSegDataset', data_root=str(data_root), img_suffix='.png', metainfo=META,
                    pipeline=LOAD + PACK, data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'))

    def make(work_dir='plan', method='st_plusplus', epochs=3, steps=1, **options):
        plan = Config.fromfile(ROOT / f'configs/_base_/self_training/{method}.py')
        lengths = {name: steps for name in plan.epoch_steps}
        plan.merge_from_dict(dict(
            work_dir=str(tmp_path / work_dir), default_scope='mmseg', custom_imports=dict(imports=['mmseg_semi']),
            randomness=dict(seed=0), epochs=epochs, epoch_steps=lengths, self_training=options, batch_size=3,
            model=dict(type='EncoderDecoder', **model, data_preprocessor=dict(
                type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True, size=(33, 33))),
            train_dataloader=dict(batch_size=2, num_workers=0, dataset=labeled('train'),
                                  sampler=dict(type='InfiniteSampler', shuffle=True)),
            val_dataloader=dict(batch_size=1, num_workers=0, dataset=labeled('val'),
                                sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='IoUMetric'), val_cfg=dict(type='ValLoop'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=99, val_interval=99),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            log_processor=dict(by_epoch=False),
            param_scheduler=dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=99, by_epoch=False),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=99, max_keep_ckpts=1, save_best='mIoU'),
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False)),
            unlabeled=dict(type='UnlabeledDataset', data_root=str(data_root),
                           data_prefix=dict(img_path='img/unlabeled')),
            pseudo_pipeline=LOAD + [dict(type='RandomFlip', prob=0.5), STRONG] + PACK))
        return plan

    return make


def train(plan):
    RUNNERS.build(plan).train()
    return Path(plan.work_dir)


def outputs(folder, stage):
    entry = json.loads((folder / 'state.json').read_text())['stages'][stage]
    return {name: folder / output['path'] for name, output in entry['outputs'].items()}


def labels(folder):
    """The lists and masks of a plan, as bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
            if path.suffix in ('.png', '.txt', '.jsonl')}


def weights(folder):
    return torch.load(outputs(folder, 'all')['last'], map_location='cpu', weights_only=False)['state_dict']


def fork(target, *args, **env):
    """Calls a function in a process of its own, which does not have to import everything anew."""

    def run():
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background shell ignore it
        os.environ.update(env)
        target(*args)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    return process


def train_as_rank(plan):
    plan.launcher = 'pytorch'
    adapt(plan, 'pytorch')
    train(plan)


def command_line(out, *args):
    """tools/self_train.py with both outputs in a file."""
    sys.stdout = sys.stderr = open(out, 'w', buffering=1)
    sys.argv = ['self_train.py', *map(str, args)]
    runpy.run_path(str(ROOT / 'tools/self_train.py'), run_name='__main__')


# ---- what the stages make ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_stage(make_plan, data_root):
    plan = make_plan()
    folder = train(plan)
    unlabeled = ['u/0', 'u/1', 'u/2', 'v/0', 'v/1']
    assert [path.name for path in sorted(folder.glob('0*'))] == STAGES
    # The score, slowly: checkpoints after iterations 1 and 2 of 3 against the last.
    sup, select = outputs(folder, 'sup'), outputs(folder, 'select')
    iterations = [torch.load(sup[name], weights_only=False)['meta']['iter'] for name in ('at_0', 'at_1', 'last')]
    assert iterations == [1, 2, 3]
    cfg = Config.fromfile(sup['config'])
    models = [load_trained(cfg, str(sup[name]))[0] for name in ('at_0', 'at_1', 'last')]
    dataset = DATASETS.build(dict(plan.unlabeled, pipeline=LOAD[:1] + PACK))
    expected = {}
    for i, key in enumerate(unlabeled):
        one, two, last = (predict_label(model, dataset[i]) for model in models)
        expected[key] = (map_agreement(one, last, 4) + map_agreement(two, last, 4)) / 2
    found = {r['id']: r['score'] for r in map(json.loads, select['scores'].read_text().splitlines())}
    assert found == pytest.approx(expected) and len(set(found.values())) > 1
    ranked = sorted(unlabeled, key=lambda key: (-expected[key], key))
    lists = [select[name].read_text().split() for name in ('reliable', 'unreliable')]
    assert [[name[:-4] for name in names] for names in lists] == [ranked[:2], ranked[2:]]
    # Each half was labeled by its model; the last training saw both.
    for stage, names in (('label_reliable', ranked[:2]), ('label_unreliable', ranked[2:])):
        masks = outputs(folder, stage)['masks']
        assert sorted(p.relative_to(masks).with_suffix('').as_posix() for p in masks.rglob('*.png')) == sorted(names)
    last = Config.fromfile(outputs(folder, 'all')['config'])
    final = DATASETS.build(last.train_dataloader.dataset)
    assert len(final) == 4 * 2 + 5 and last.train_dataloader.batch_size == 3
    key = ranked[-1]
    index = next(i for i in range(len(final)) if key in final.get_data_info(i)['img_path'])
    mask = np.array(Image.open(outputs(folder, 'label_unreliable')['masks'] / f'{key}.png'))
    assert (final[index]['data_samples'].gt_sem_seg.data.numpy() == mask).all()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*.pth')}
    changed = make_plan()
    changed.epoch_steps['all'] = 2
    changed.self_training.on_stale = 'rerun'
    train(changed)  # the other trainings do not depend on the length of the last
    redone = {path.parent.name for path in folder.rglob('*.pth') if path.stat().st_mtime_ns != before.get(path)}
    assert redone == {'06_all'}


def test_st_labels_everything_once(make_plan):
    folder = train(make_plan(method='st', epochs=1))
    assert [path.name for path in sorted(folder.glob('0*'))] == ['01_sup', '02_label', '03_all']
    assert len(list((folder / '02_label').rglob('*.png'))) == 5


@pytest.mark.slow
def test_one_unlabeled_image_is_not_reliable(make_plan, data_root):
    """Specification, section 9: then the second training has the labeled images only."""
    for name in ('u/0', 'u/1', 'v/0', 'v/1'):
        (data_root / 'img/unlabeled' / f'{name}.png').unlink()
    folder = train(make_plan())
    select = outputs(folder, 'select')
    assert select['reliable'].read_text() == '' and select['unreliable'].read_text() == 'u/2.png\n'
    assert (outputs(folder, 'label_reliable')['masks'] / 'manifest.jsonl').read_text() == ''
    sets = [DATASETS.build(Config.fromfile(outputs(folder, name)['config']).train_dataloader.dataset)
            for name in ('reliable', 'all')]
    assert [len(dataset) for dataset in sets] == [4, 5]
    assert 'reliable.txt is empty: training on the labeled images only' in ''.join(
        path.read_text() for path in (folder / '04_reliable').rglob('*.log'))


def test_masks_have_the_size_of_the_file(make_plan, data_root):
    plan = make_plan(method='st', epochs=1, until='label')
    plan.unlabeled.pipeline = [LOAD[0], dict(type='Resize', scale=(20, 20), keep_ratio=True), *PACK]
    masks = outputs(train(plan), 'label')['masks']
    assert {Image.open(path).size for path in masks.rglob('*.png')} == {(33, 33)}


# ---- mistakes ---------------------------------------------------------------------------------------------------


# mmseg's head of two classes and one output: ST++'s softmax over it would call every pixel class 0.
ONE_CHANNEL = dict(type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=2, out_channels=1,
                   threshold=0.3, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))


@pytest.mark.parametrize('change, words', [
    (dict(pick=dict(sup='sup:worst')), "stage label_reliable: 'sup:worst' does not exist; stage sup makes config,"),
    (dict(pick=dict(sup='sup:at_2')), "'sup:at_2' does not exist; .* at_0, at_1$"),
    (dict(unlabeled=None), "stage label_reliable: _from_ must be 'config:KEY' of a dict .*, found None"),
    (dict(epochs=0), 'stage sup: TrainStage.epochs and epoch_steps must both be positive, found 0 and 1'),
    (dict(epoch_steps=dict(all=None)), 'stage all: .* found 3 and None'),
    (dict(epochs=2), r'stage sup: .* are the iterations \[0, 1\]; expected different ones, at least 1'),
    (dict(model=None), 'stage sup: the config of a TrainStage lacks model'),
    (dict(model=dict(decode_head=ONE_CHANNEL)), 'stage label_reliable: cfg: sup.*: decode_head.out_channels=1'),
])
def test_mistakes_are_found_before_training(make_plan, change, words):
    plan = make_plan()
    for key, value in change.items():
        plan[key] = dict(plan[key], **value) if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=words):
        train(plan)
    assert not list(Path(plan.work_dir).glob('0*'))


def test_part_of_the_config_that_is_not_there(make_plan):
    plan = make_plan()
    plan.pop('pseudo_pipeline')
    with pytest.raises(ValueError, match="stage reliable: 'config:pseudo_pipeline': the plan's config has no"):
        train(plan)


def test_a_stage_cannot_be_called_config(make_plan):
    plan = make_plan()
    plan.self_training.stages[0].name = 'config'
    with pytest.raises(ValueError, match=r"stages\[0\].name: 'config' is taken"):
        train(plan)


# ---- ranks, kills, Ctrl-C ---------------------------------------------------------------------------------------


def exit_codes_of_two_ranks(target, *args):
    """Calls a function in two processes that find each other."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ranks = [fork(target, *args, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                  MASTER_PORT=str(port)) for rank in (0, 1)]
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def train_while_the_best_is_saved_slowly(plan):
    save = Runner.save_checkpoint

    def slowly(self, out_dir, filename, *args, **kwargs):
        if filename.startswith('best'):
            if self.rank == 0:
                Path(out_dir, filename).write_bytes(b'cut off')
            time.sleep(1 if self.rank else 3)
        save(self, out_dir, filename, *args, **kwargs)

    Runner.save_checkpoint = slowly
    train_as_rank(plan)


@pytest.mark.slow
def test_ranks_wait_for_the_best_checkpoint(make_plan):
    """The last validation is the best one here, and rank 0 still writes when the others are done."""
    assert exit_codes_of_two_ranks(train_while_the_best_is_saved_slowly, make_plan(until='sup')) == [0, 0]


@pytest.mark.slow
def test_two_ranks_make_the_same_lists_and_masks(make_plan, tmp_path):
    assert exit_codes_of_two_ranks(train_as_rank, make_plan('two')) == [0, 0]
    two = tmp_path / 'two'
    assert json.loads((two / 'state.json').read_text())['stages']['all']['status'] == 'done'
    assert not list(two.rglob('*.rank*')) and not list(two.rglob('*.part*'))
    # One process takes the first training over and does the rest of the first half by itself.
    one = tmp_path / 'one'
    shutil.copytree(two / '01_sup', one / '01_sup')
    state = json.loads((two / 'state.json').read_text())
    state['stages'] = {'sup': state['stages']['sup']}
    (one / 'state.json').write_text(json.dumps(state))
    before = outputs(one, 'sup')['last'].stat().st_mtime_ns
    train(make_plan('one', until='label_reliable'))
    assert outputs(one, 'sup')['last'].stat().st_mtime_ns == before
    made = {path: content for path, content in labels(one).items() if path.parts[0] in STAGES[1:3]}
    assert len(made) == 3 + 2 + 1
    assert made == {path: content for path, content in labels(two).items() if path.parts[0] in STAGES[1:3]}


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_the_same(make_plan, kill_in_each, tmp_path):
    """kill -9 at a random moment of each stage: the same lists, the same masks byte for byte, the same weights."""
    whole = train(make_plan('whole', epochs=6))
    killed = tmp_path / 'killed'
    kill_in_each(lambda: make_plan('killed', epochs=6), killed,
                 dict(sup=6, select=5, label_reliable=2, reliable=6, label_unreliable=3, all=6))
    assert labels(killed) == labels(whole) and len(labels(whole)) == 5 + 5
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(killed)[name], tensor), name
    assert not list(killed.rglob('*.part*'))


@pytest.mark.slow
def test_ctrl_c_then_go_on(make_plan, tmp_path):
    plan, out, folder = tmp_path / 'plan.py', tmp_path / 'out.txt', tmp_path / 'plan'
    make_plan(epochs=30).dump(str(plan))
    process = fork(command_line, out, plan, '--until', 'select')
    while process.is_alive() and not (folder / '01_sup' / 'iter_2.pth').exists():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert out.read_text().rstrip().endswith('interrupted; the same command goes on where it stopped')
    assert 'Traceback' not in out.read_text()
    assert json.loads((folder / 'state.json').read_text())['stages']['sup']['status'] == 'running'
    process = fork(command_line, out, plan, '--until', 'select')
    process.join(120)
    printed = out.read_text()
    assert process.exitcode == 0 and not list(folder.rglob('*.part*'))
    assert 'Stage 1 of 6, sup: goes on' in printed and 'Iter(train) [ 1/30]' not in printed
    assert 'Iter(train) [30/30]' in printed and '2 of 5 images are reliable' in printed


@pytest.mark.parametrize('args, words', [
    (['none.py'], "No such file or directory: 'none.py'"),
    (['broken.py'], 'broken.py, or a file of its _base_, cannot be read: SyntaxError'),
    ([ROOT / 'configs/supervised/supervised_tiny_shapes.py'], 'is no plan; train it with: python tools/train.py'),
    (['plan.py', '--until', 'nowhere'], "until='nowhere' is no stage; there are sup, select, label_reliable"),
    (['plan.py', '--from', 'select'], "start='select', but stage sup before it is not done"),
    (['plan.py', '--cfg-options', 'self_training.stages.1.ratio=3'], 'stage select: SelectStage.ratio must be in'),
    (['plan.py', '--cfg-options', 'unlabeled.data_root=nowhere', '--until', 'sup', '--on-stale', 'rerun',
      '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'nowhere'),
])
def test_mistakes_on_the_command_line_are_one_line(make_plan, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    make_plan().dump('plan.py')
    Path('broken.py').write_text('a = (')
    process = fork(command_line, 'out.txt', *args)
    process.join(60)
    lines = Path('out.txt').read_text().splitlines()
    assert process.exitcode == 2
    assert lines[-1].startswith('error: ') and words in lines[-1] and 'Traceback' not in ''.join(lines)


def test_an_image_that_cannot_be_read_is_told_in_one_line(make_plan, data_root, tmp_path):
    """In the middle of the plan; the traceback is kept."""
    plan, out, bad = tmp_path / 'plan.py', tmp_path / 'out.txt', data_root / 'img/unlabeled/v/0.png'
    bad.write_bytes(b'no image')
    make_plan().dump(str(plan))
    process = fork(command_line, out, plan)
    process.join(60)
    lines = out.read_text().splitlines()
    assert process.exitcode == 2 and 'Traceback' not in ''.join(lines)
    assert lines[-2:] == [f'error: failed to load image: {bad}',
                          f'Where it happened: {tmp_path}/plan/traceback.txt']
