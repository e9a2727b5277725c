"""The stages of CISC-R: index, anchors and scores against loops, a whole plan of tiny trainings."""
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS
from PIL import Image

from mmseg_semi.datasets import ClassIndex
from mmseg_semi.engine.runner import IndexStage, SelectStage, cisc_anchor, select_stage
from mmseg_semi.engine.runner.image_sets import by_images
from mmseg_semi.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[3]
CLASSES, PALETTE = ('a', 'b', 'c', 'd'), [[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]]
SIZE = (33, 33)
TRAIN = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=4),
         dict(type='RandomCrop', crop_size=SIZE), dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
STAGE = dict(launcher='none', env_cfg={}, plan_cfg={})


@pytest.fixture
def data_root(tmp_path):
    """Four labeled images of 36 x 40, five unlabeled ones in two folders and two for validation."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'data'
    for split, names in (('train', 'abcd'), ('unlabeled', ('u/0', 'u/1', 'u/2', 'v/0', 'v/1')), ('val', '01')):
        for name in names:
            label = np.kron(rng.integers(4, size=(3, 4)), np.ones((12, 10))).astype(np.uint8)
            image = (label[..., None] * 60 + rng.integers(40, size=(36, 40, 3))).astype(np.uint8)
            for kind, content in (('img', image), ('ann', label)):
                path = root / kind / split / f'{name}.png'
                if kind == 'img' or split != 'unlabeled':
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), content)
    return root


@pytest.fixture
def labeled(data_root):
    return dict(type='BaseSegDataset', data_root=str(data_root), img_suffix='.png', pipeline=TRAIN,
                metainfo=dict(classes=CLASSES, palette=PALETTE),
                data_prefix=dict(img_path='img/train', seg_map_path='ann/train'))


@pytest.fixture
def unlabeled(data_root):
    return dict(type='UnlabeledDataset', data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled'))


@pytest.fixture
def network(tiny_cfg):
    cfg = {key: copy.deepcopy(tiny_cfg[key]) for key in ('backbone', 'decode_head', 'test_cfg')}
    return dict(cfg, data_preprocessor=dict(type='GuidedSegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3,
                                            bgr_to_rgb=True, size=SIZE))


# ---- index ------------------------------------------------------------------------------------------------------


def test_index_stage(labeled, data_root, tmp_path):
    def make(**options):
        return IndexStage(labeled, folder=tmp_path, here=tmp_path, **STAGE, **options)

    stage = make(min_area=0.1, exclude=[0])
    path = stage.run()['class_index']
    index = ClassIndex.load(str(path), 'abcd')
    assert (index.min_area, index.exclude, index.ids) == (0.1, (0, ), tuple('abcd'))
    for c in range(4):
        shares = {name: (cv2.imread(str(data_root / f'ann/train/{name}.png'), 0) == c).mean() for name in 'abcd'}
        assert index.lists[c] == tuple(name for name in 'abcd' if shares[name] >= 0.1)
    before = by_images(stage.settings(), ())
    (data_root / 'img/train/d.png').unlink()
    assert by_images(stage.settings(), ()) != before  # another split makes the stage stale
    nowhere = IndexStage(dict(labeled, data_root='nowhere'), folder=tmp_path, here=tmp_path, **STAGE)
    with pytest.raises(ValueError, match=r'labeled: .*nowhere'):
        by_images(nowhere.settings(), ())
    with pytest.raises(ValueError, match=r'IndexStage.min_area must be in \(0, 1\], found 3'):
        make(min_area=3)


# ---- scores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def select(network, labeled, unlabeled, tmp_path):
    """Function that makes a SelectStage over random weights and random masks."""
    torch.manual_seed(0)
    model = MODELS.build(dict(copy.deepcopy(network), type='CISCPair'))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'model.pth')
    Config(dict(model=dict(network, type='CISCPair'), default_scope='mmseg')).dump(str(tmp_path / 'config.py'))
    rng = np.random.default_rng(1)
    for name in ('u/0', 'u/1', 'u/2', 'v/0', 'v/1'):
        mask = np.kron(rng.integers(3, size=(3, 4)), np.ones((12, 10))).astype(np.uint8)
        mask[:3] = 255
        (tmp_path / 'masks' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / 'masks' / f'{name}.png')
    IndexStage(labeled, folder=tmp_path, here=tmp_path, **STAGE).run()

    def make(folder='select', **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        scorer = dict(type='CISCAnchor', cfg=str(tmp_path / 'config.py'), checkpoint=str(tmp_path / 'model.pth'),
                      labeled=labeled, index=str(tmp_path / 'class_index.json'), masks=str(tmp_path / 'masks'))
        return SelectStage(dict(scorer, **options), unlabeled, folder=tmp_path / folder, here=tmp_path, **STAGE)

    make.model = model.eval()
    return make


def whole(model, path):
    """Features [D, h, w] of an image file."""
    image = cv2.imread(str(path))[..., ::-1].copy()
    x = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - 127) / 64
    with torch.no_grad():
        model.decode_head(model.extract_feat(x))
    return model.tap.pop()[0]


def slow_score(features, anchor, label, c):
    """r(x, y, c) of section 6."""
    cosine = F.cosine_similarity(features, anchor[:, None, None], dim=0)
    s = F.interpolate(cosine[None, None], label.shape, mode='bilinear')[0, 0].clamp(1e-6, 1 - 1e-6)
    bce = F.binary_cross_entropy(s, (label == c).float(), reduction='none')
    return float(bce[label != 255].mean())


def mask_of(path):
    return torch.from_numpy(np.array(Image.open(path)).astype(np.int64))


@pytest.mark.parametrize('scale, divisor', [(None, 16), ((20, 18), None), ((20, 18), 16)])
def test_images_of_another_size_than_their_masks(select, unlabeled, data_root, tmp_path, scale, divisor):
    """Shown to the network at half their size, and padded as networks that cut patches need it: the margin of the
    masks counts nothing."""
    config = Config.fromfile(tmp_path / 'config.py')
    config.model.data_preprocessor.test_cfg = divisor and dict(size_divisor=divisor)
    config.dump(str(tmp_path / 'config.py'))
    resize = [dict(type='Resize', scale=scale, keep_ratio=True)] if scale else []
    unlabeled['pipeline'] = [dict(type='LoadImageFromFile'), *resize, dict(type='PackSegInputs')]
    outputs = select(reduce='sum').run()
    with np.load(outputs['anchors']) as content:
        anchors = torch.from_numpy(content['anchors'])
    found = {r['id']: r['score'] for r in map(json.loads, outputs['scores'].read_text().splitlines())}
    for name in ('u/0', 'v/1'):
        image = cv2.imread(str(data_root / f'img/unlabeled/{name}.png'))[..., ::-1].copy()
        label = mask_of(tmp_path / f'masks/{name}.png')
        if scale:
            image = cv2.resize(image, scale)
        size = [-(-side // (divisor or 1)) * (divisor or 1) for side in image.shape[:2]]
        pixels = torch.zeros(1, 3, *size)  # the mean color
        pixels[..., :image.shape[0], :image.shape[1]] = (torch.from_numpy(image).permute(2, 0, 1).float() - 127) / 64
        with torch.no_grad():
            select.model.decode_head(select.model.extract_feat(pixels))
        features = select.model.tap.pop()[0]
        shrunk = 2 if scale else 1
        score = 0
        for c in label.unique().tolist():
            if c != 255:
                cosine = F.cosine_similarity(features, anchors[c][:, None, None], dim=0)
                s = F.interpolate(cosine[None, None], [shrunk * side for side in size], mode='bilinear')[0, 0]
                s = s.clamp(1e-6, 1 - 1e-6)[:label.shape[0], :label.shape[1]]
                bce = F.binary_cross_entropy(s, (label == c).float(), reduction='none')
                score += float(bce[label != 255].mean())
        assert found[name] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize('reduce', ['sum', 'mean'])
def test_scores_and_guides_equal_loops(select, data_root, tmp_path, reduce):
    stage = select(reduce=reduce, repeats=2)
    outputs = stage.run()
    with np.load(outputs['anchors']) as content:
        anchors, valid = torch.from_numpy(content['anchors']), content['valid']
        assert 0 < content['images'].max() <= 8  # two crops of each of four images
    index = ClassIndex.load(str(tmp_path / 'class_index.json'), 'abcd')
    assert valid.tolist() == [bool(members) for members in index.lists]
    expected = {}
    for name in ('u/0', 'u/1', 'u/2', 'v/0', 'v/1'):
        features = whole(select.model, data_root / f'img/unlabeled/{name}.png')
        label = mask_of(tmp_path / f'masks/{name}.png')
        scores = [slow_score(features, anchors[c], label, c) for c in label.unique().tolist() if c != 255]
        expected[name] = sum(scores) / (len(scores) if reduce == 'mean' else 1)
    found = {r['id']: r['score'] for r in map(json.loads, outputs['scores'].read_text().splitlines())}
    assert found == pytest.approx(expected, abs=1e-5)
    ranked = sorted(expected, key=lambda name: (expected[name], name))
    assert outputs['reliable'].read_text().split() == [f'{name}.png' for name in ranked[:2]]
    guides = ClassIndex.load(str(outputs['guide_index']), 'abcd')
    for c, members in enumerate(index.lists):
        scores = {name: slow_score(whole(select.model, data_root / f'img/train/{name}.png'), anchors[c],
                                   mask_of(data_root / f'ann/train/{name}.png'), c) for name in members}
        best = sorted(members, key=lambda name, scores=scores: (scores[name], name))[:max(1, len(members) // 2)]
        assert guides.lists[c] == tuple(sorted(best))


def test_images_are_not_held_in_memory(select, held):
    """Crops for the anchors, labeled images for the guides, images to be scored: the one at hand, and the next."""
    scored, made_first = held(select_stage), held(cisc_anchor)
    select(repeats=3).run()
    assert len(scored) == 5 and max(scored) <= 2
    assert len(made_first) == 3 * 4 + 4 and max(made_first) <= 2


def test_anchors_are_means_over_images_with_the_class(select, data_root):
    """Without random crops and flips, so that they can be computed."""
    select_labeled = copy.deepcopy(select().scorer.labeled_cfg)
    select_labeled['pipeline'] = [*TRAIN[:3], dict(type='RandomCrop', crop_size=(36, 40)), TRAIN[-1]]
    stage = select(labeled=select_labeled)
    stage.scorer.prepare(stage.folder, DATASETS.build(stage.dataset))
    for c in range(4):
        vectors = []
        for name in 'abcd':
            mask = mask_of(data_root / f'ann/train/{name}.png') == c
            up = F.interpolate(whole(select.model, data_root / f'img/train/{name}.png')[None], (36, 40),
                               mode='bilinear')[0]
            if mask.any():
                vectors.append((up * mask).sum((1, 2)) / (mask.sum() + 5e-4))
        torch.testing.assert_close(stage.scorer.anchors[c], sum(vectors) / len(vectors), atol=1e-5, rtol=1e-4)


def test_a_stopped_selection_goes_on(select, monkeypatch):
    whole_run = select('one').run()
    stage = select('two')
    score, calls = stage.scorer.score, []

    def stop(sample):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(sample)

    stage.scorer.score = stop
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    again = select('two')
    monkeypatch.setattr(type(again.scorer), '_make_anchors', None)  # those on disk serve
    outputs = again.run()
    for name in ('scores', 'reliable', 'unreliable', 'guide_index'):
        assert outputs[name].read_text() == whole_run[name].read_text()
    with np.load(outputs['anchors']) as one, np.load(whole_run['anchors']) as other:
        assert np.array_equal(one['anchors'], other['anchors'])


def test_draws_outside_go_on_as_before(select):
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    select().run()
    assert np.random.random() == expected


def test_parity_may_empty_a_list(select, tmp_path):
    index = ClassIndex.load(str(tmp_path / 'class_index.json'), 'abcd')
    lonely = ClassIndex(index.ids, [{'a': .5}, *index.areas[1:]], index.classes)
    lonely.save(str(tmp_path / 'class_index.json'))
    for keep, expected in ((0, ()), (1, ('a', ))):
        outputs = select(f'keep{keep}', min_keep=keep).run()
        assert ClassIndex.load(str(outputs['guide_index']), 'abcd').lists[0] == expected


def test_images_without_a_score_come_last(select, tmp_path):
    Image.fromarray(np.full((36, 40), 255, np.uint8)).save(tmp_path / 'masks/u/1.png')
    outputs = select().run()
    assert outputs['unreliable'].read_text().split()[-1] == 'u/1.png'


def test_mistakes_of_the_scorer(select, tmp_path, network, labeled):
    for option, words in ((dict(reduce='max'), "reduce must be 'sum' or 'mean', found 'max'"),
                          (dict(guide_ratio=0), r'guide_ratio must be in \(0, 1\], found 0'),
                          (dict(min_keep=-1), 'min_keep must be at least 0, found -1'),
                          (dict(repeats=0), 'repeats must be at least 1, found 0')):
        with pytest.raises(ValueError, match=words):
            select(**option)
    plain = dict(copy.deepcopy(network), type='EncoderDecoder')
    Config(dict(model=plain, default_scope='mmseg')).dump(str(tmp_path / 'plain.py'))
    with pytest.raises(TypeError, match='must be that of a CISCPair or CISCRectify, found EncoderDecoder in .*plain'):
        select(cfg=str(tmp_path / 'plain.py')).run()
    mask = tmp_path / 'masks/u/1.png'
    Image.fromarray(np.full((36, 40), 9, np.uint8)).save(mask)
    with pytest.raises(ValueError, match=r'u/1\.png holds labels \[9\]; expected 0\.\.3 or 255'):
        select().run()
    for array, words in (
        (np.zeros((40, 36), np.uint8), r'masks/u/1\.png is \(40, 36\), its image .*u/1\.png is \(36, 40\)'),
        (np.zeros((36, 40, 3), np.uint8), r'masks/u/1\.png is a PNG of mode RGB; expected class indices'),
    ):
        Image.fromarray(array).save(mask)
        with pytest.raises(ValueError, match=words):
            select().run()
    mask.write_bytes(b'no mask')
    with pytest.raises(ValueError, match=r'cannot read pseudo-label .*masks/u/1\.png: UnidentifiedImageError'):
        select().run()
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r'no pseudo-label of .*u/1\.png: looked for .*masks/u/1\.png'):
        select().run()
    other = copy.deepcopy(labeled)
    other['indices'] = 2
    with pytest.raises(ValueError, match='is of another labeled split'):
        select('other', labeled=other).run()


# ---- the plan ---------------------------------------------------------------------------------------------------


@pytest.fixture
def make_plan(network, labeled, unlabeled, data_root, tmp_path):
    """Function that lays configs/_base_/self_training/cisc_r.py over the tiny network and data."""
    base = Config.fromfile(ROOT / 'configs/_base_/self_training/cisc_r.py')

    def loader(of, sampler, **kwargs):
        return dict(batch_size=2, num_workers=0, sampler=dict(type=sampler), dataset=of, **kwargs)

    def make(work_dir='plan', **options):
        val = dict(copy.deepcopy(labeled), data_prefix=dict(img_path='img/val', seg_map_path='ann/val'),
                   pipeline=[*TRAIN[:2], TRAIN[-1]])
        val = loader(val, 'DefaultSampler')
        val['batch_size'] = 1
        cfg = dict(
            default_scope='mmseg', custom_imports=dict(imports=['mmseg_semi']), randomness=dict(seed=0),
            work_dir=str(tmp_path / work_dir), unlabeled=unlabeled,
            model=dict(network, type='EncoderDecoder', data_preprocessor=dict(
                network['data_preprocessor'], type='SegDataPreProcessor')),
            train_dataloader=loader(labeled, 'InfiniteSampler'), val_dataloader=val,
            val_evaluator=dict(type='IoUMetric'), val_cfg=dict(type='ValLoop'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            param_scheduler=dict(type='PolyLR', end=4, by_epoch=False),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2, save_best='mIoU'),
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False)))
        plan = base.to_dict()
        plan.update(cfg, epochs=2, epoch_steps=dict(sup=2, re1=1, re2=1), pairs=2, counts=(2, 2), batch_size=4,
                    scales=(1.0, ))
        plan['rectify']['augments'] = [dict(type='ColorJitter')]
        plan.update(options)
        return Config(plan)

    return make


def run(plan):
    RUNNERS.build(plan).train()
    return Path(plan.work_dir)


def state_of(folder):
    return json.loads((folder / 'state.json').read_text())['stages']


def weights(folder, stage):
    path = folder / state_of(folder)[stage]['outputs']['last']['path']
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


@pytest.mark.slow
def test_the_whole_plan(make_plan, network):
    folder = run(make_plan())
    stages = state_of(folder)
    assert list(stages) == ['index', 'sup', 'label_all', 'select', 're1', 'label_unreliable', 're2']
    assert all(stage['status'] == 'done' for stage in stages.values())
    reliable, unreliable = ((folder / '04_select' / f'{name}.txt').read_text().split()
                            for name in ('reliable', 'unreliable'))
    assert len(reliable) == 2 and len(unreliable) == 3
    masks = {path.relative_to(folder / '06_label_unreliable/masks').as_posix()
             for path in (folder / '06_label_unreliable/masks').rglob('*.png')}
    assert masks == set(unreliable)
    plain = MODELS.build(dict(copy.deepcopy(network), type='EncoderDecoder'))
    for stage in ('sup', 're1', 're2'):
        plain.load_state_dict(weights(folder, stage))  # no teacher in it
    teachers = [Config.fromfile(folder / stage / 'config.py').custom_hooks[0].checkpoint
                for stage in ('05_re1', '07_re2')]
    assert [Path(path).parent.name for path in teachers] == ['02_sup', '05_re1']
    assert not torch.equal(weights(folder, 're1')['backbone.conv1.weight'],
                           weights(folder, 'sup')['backbone.conv1.weight'])
    for stage in ('02_sup', '05_re1'):
        log, = folder.glob(f'{stage}/*/vis_data/scalars.json')
        first = json.loads(log.read_text().splitlines()[0])
        assert 0 <= first['monitor.has_guide'] <= 1
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*.p[tn][hg]')}
    run(make_plan())
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob('*.p[tn][hg]')}


@pytest.mark.parametrize('dry_run', [True, False])
@pytest.mark.parametrize('change, words', [
    (dict(counts=(2, 1)), r'stage re1: train_dataloader.batch_size is 4, but sampler.counts=\(2, 1\) sum to 3: change'),
    (dict(counts=(4, 0)), r'stage re1: counts must be two positive integers .*got \(4, 0\)'),
    (dict(batch_size=6), r'stage re1: train_dataloader.batch_size is 6, but sampler.counts=\(2, 2\) sum to 4'),
    (dict(rectify=dict(teacher_view='both')), "stage re1: model: .*teacher_view must be 'strong' or 'weak', found"),
    (dict(rectify=dict(teacher='weak')), "stage re1: model: .*unexpected keyword argument 'teacher'"),
    (dict(guidance=dict(pool_eps=5e-4, similarity_range='tanh')), "stage sup: model: .*'tanh'"),
])
def test_mistakes_of_the_retrainings_are_found_before_the_first(make_plan, change, words, dry_run):
    plan = make_plan(**change)
    plan.self_training.dry_run = dry_run
    with pytest.raises(ValueError, match=words):
        run(plan)
    assert not list(Path(plan.work_dir).glob('0*'))


def test_hooks_of_the_config_stay_beside_those_of_the_stages(make_plan):
    plain = RUNNERS.build(make_plan())
    plan = RUNNERS.build(make_plan(custom_hooks=[
        dict(type='GuideShareHook', interval=7), dict(type='EarlyStoppingHook', monitor='mIoU')]))
    for stage in ('sup', 're1', 're2'):
        own, hooks = (one.built[stage].cfg.custom_hooks for one in (plain, plan))
        assert hooks == [*own, dict(type='EarlyStoppingHook', monitor='mIoU')]
    assert [len(plain.built[stage].cfg.custom_hooks) for stage in ('sup', 're1', 're2')] == [1, 2, 2]


@pytest.mark.parametrize('images, ratio', [(1, 0.5), (3, 0.3)])
def test_an_empty_half_is_found_before_the_first_training(make_plan, data_root, images, ratio):
    for path in sorted(data_root.glob('img/unlabeled/*/*.png'))[images:]:
        path.unlink()
    plan = make_plan()
    plan.self_training.stages[3].ratio = ratio
    with pytest.raises(ValueError, match='stage re1: train_dataloader.dataset.unlabeled.primary: select:reliable will '
                       f'hold no image, as ratio={ratio} of the {images} images of stage select'):
        run(plan)
    assert not list(Path(plan.work_dir).glob('0*'))


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_the_same(make_plan, network, kill_in_each, tmp_path):
    """kill -9 at a random moment of each stage: same lists, same masks byte for byte, same weights.

    Crops, flips, guides, dropout and strong views are random, and the killed runs read with a worker.
    """
    network['decode_head']['dropout_ratio'] = 0.2
    length = dict(epochs=3, epoch_steps=dict(sup=2, re1=2, re2=2))
    whole, killed = run(make_plan('whole', **length)), tmp_path / 'killed'

    def plan():
        plan = make_plan('killed', **length)
        plan.train_dataloader.update(num_workers=1, persistent_workers=True)
        return plan

    kill_in_each(plan, killed,
                 dict(index=3, sup=6, label_all=5, select=4 + 5, re1=6, label_unreliable=3, re2=6))
    made = {path.relative_to(whole) for path in whole.rglob('*.*') if path.suffix in ('.png', '.txt', '.jsonl')}
    assert len(made) > 5 + 3 + 2
    for path in made:
        assert (whole / path).read_bytes() == (killed / path).read_bytes(), path
    for stage in ('sup', 're1', 're2'):
        for name, tensor in weights(whole, stage).items():
            assert torch.equal(weights(killed, stage)[name], tensor), (stage, name)


@pytest.mark.slow
def test_dist_train_runs_the_plan_on_two_ranks(make_plan, tmp_path):
    """The headline command; selection by two ranks lists what one process lists with the same first network."""
    make_plan('two').dump(tmp_path / 'plan.py')
    two, one = tmp_path / 'two', tmp_path / 'one'
    done = subprocess.run(['bash', 'tools/dist_train.sh', tmp_path / 'plan.py', '2', '--work-dir', two], cwd=ROOT,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                          env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-3000:]
    stages = state_of(two)
    assert [stage['status'] for stage in stages.values()] == ['done'] * 7
    assert not list(two.rglob('*.rank*')) and not list(two.rglob('*.part*'))
    for folder in ('01_index', '02_sup'):
        shutil.copytree(two / folder, one / folder)
    (one / 'state.json').write_text(json.dumps(dict(json.loads((two / 'state.json').read_text()), stages={
        name: stages[name] for name in ('index', 'sup')})))
    plan = make_plan('one')
    plan.self_training.until = 'select'
    run(plan)
    made = {path.relative_to(one) for path in one.rglob('*.*') if path.suffix in ('.png', '.txt')}
    assert len(made) == 5 + 2
    for path in made:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path


@pytest.mark.slow
def test_a_retraining_resumes_with_its_teacher_and_draws(make_plan, select, labeled, unlabeled, tmp_path):
    """Stopped after the first of two iterations and resumed: the same weights as unbroken."""
    # One guide of one class and no random crop: what is left are the draws of the strong view.
    fixed = [*TRAIN[:3], dict(type='RandomCrop', crop_size=(40, 40)), TRAIN[-1]]
    one = dict(labeled, pipeline=fixed, indices=1)
    folder = tmp_path / 'one'
    folder.mkdir()
    index = IndexStage(one, exclude=[0, 1, 3], folder=folder, here=tmp_path, **STAGE).run()['class_index']
    plan = make_plan(rectify=dict(augments=[dict(type='ColorJitter')]))

    def train(work_dir, steps, resume=False):
        cfg = Config({key: plan[key] for key in ('default_scope', 'val_dataloader', 'val_evaluator', 'val_cfg',
                                                 'optim_wrapper', 'default_hooks')})
        cfg.merge_from_dict(dict(
            model=dict(plan.model, type='CISCRectify', augments=plan.rectify.augments),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=100), randomness=dict(seed=3),
            custom_hooks=[dict(type='FrozenTeacherHook', checkpoint=str(tmp_path / 'model.pth'))],
            train_dataloader=dict(
                batch_size=4, num_workers=0, collate_fn=dict(type='semi_collate'),
                sampler=dict(type='LabeledUnlabeledSampler', counts=(2, 2), seed=3),
                dataset=dict(type='SemiDataset', labeled=one, unlabeled=dict(
                    type='GuidedPairDataset', labeled=one, index=str(index), primary=dict(
                        unlabeled, type='PseudoLabeledDataset', mask_dirs=str(tmp_path / 'masks'),
                        pipeline=fixed))))))
        cfg.model.data_preprocessor.update(type='GuidedSegDataPreProcessor', size=(40, 40))
        cfg.work_dir, cfg.resume, cfg.experiment_name = str(tmp_path / work_dir), resume, f'{work_dir}_{steps}'
        Runner.from_cfg(cfg).train()
        content = torch.load(tmp_path / work_dir / f'iter_{steps}.pth', map_location='cpu', weights_only=False)
        return content['state_dict']

    unbroken, first = train('unbroken', 2), train('broken', 1)
    resumed = train('broken', 2, resume=True)
    for name, tensor in unbroken.items():
        assert torch.equal(resumed[name], tensor), name
    assert not torch.equal(first['decode_head.conv_seg.weight'], resumed['decode_head.conv_seg.weight'])
