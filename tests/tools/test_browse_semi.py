"""tools/analysis_tools/browse_semi.py: draws the steps of training as they are, and refuses what has none."""
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_semi.structures import Target

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'analysis_tools'
METHODS = ['fixmatch_ema/fixmatch_ema', 'pcr/pcr', 'css/css_mix', 'css/css_cross', 'maskmatch/maskmatch']

CONFIG = '''
_base_ = {base!r}
where = dict(data_root={root!r}, serialize_data=False)
train_dataloader = dict(batch_size=4, sampler=dict(counts=(2, 2)), dataset=dict(labeled=where, unlabeled=where))
'''


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module('browse_semi')


@pytest.fixture(scope='module')
def page(tool):
    return importlib.import_module('browse_page')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """The synthetic scenes, a few of them, in a folder of their own."""
    spec = importlib.util.spec_from_file_location('make_shapes', ROOT / 'tools/dataset_converters/make_shapes.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp('browse') / 'shapes'
    module.make_shapes(root, num_labeled=3, num_unlabeled=4, num_val=1)
    return root


@pytest.fixture
def config(tmp_path, shapes):
    """Function that writes the config of a method on those scenes."""

    def write(method, more='', root=shapes):
        path = tmp_path / f'{Path(method).name}.py'
        path.write_text(CONFIG.format(base=str(ROOT / f'configs/{method}_tiny_shapes.py'), root=str(root)) + more)
        return str(path)

    return write


@pytest.fixture
def browse(tool, tmp_path, monkeypatch, capsys):
    """Function that calls the tool from ``tmp_path``: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status = tool.main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def one_error(err):
    """The last line of stderr, the only one that tells an error. (A log of the framework may stand above it.)"""
    last = err.splitlines()[-1]
    # torch's own words may hold an 'error: ', too
    assert last.startswith('error: ') and sum(line.startswith('error: ') for line in err.splitlines()) == 1, err
    return last


@pytest.mark.parametrize('method', METHODS)
def test_steps_are_those_of_training(tool, config, tmp_path, method):
    cfg = tool.read_config(tool.parse_args([config(method)]))
    loader = tool.build_loader(cfg, seed=0)
    model, iteration, _ = tool.build_model(cfg, None)
    assert iteration == 300 == model.start_iter
    # On the drawn iteration prototypes exist, thresholds are met, and no method is in a warm-up of its own.
    if hasattr(model, 'prototypes'):
        model.prototypes.normal_()
        model.prototype_seen.fill_(True)
        model.warmup_iters = 0
    model.begin_train(800)
    batch = next(iter(loader))
    step = tool.make_step(model, batch, iteration, seed=0)
    seen = []
    model.extra_losses = lambda step: seen.append(step) or {}
    model.loss(**model.data_preprocessor(batch, training=True))
    trained, = seen
    assert torch.equal(step.batch.weak, trained.batch.weak) and torch.equal(step.labels, trained.labels)
    assert len(step.mixed) == len(trained.mixed) == len(model.branches)
    for mine, theirs in zip([step.target, *(view.target for view in step.mixed)],
                            [trained.target, *(view.target for view in trained.mixed)], strict=True):
        assert type(mine) is type(theirs)
        for name, value in vars(theirs).items():
            assert torch.equal(getattr(mine, name), value), name
    for mine, theirs in zip(step.mixed, trained.mixed, strict=True):
        assert torch.equal(mine.images, theirs.images) and not torch.equal(mine.images, step.batch.weak)


@pytest.mark.parametrize('method, columns', [('pcr/pcr', 7), ('css/css_cross', 9), ('maskmatch/maskmatch', 10)])
def test_one_picture_per_batch(page, browse, config, tmp_path, method, columns):
    path = config(method, 'model = dict(warmup_iters=0)\n' if 'css' in method else '')
    status, out, err = browse(path, '--batches', 2, '--rows', 2)
    assert status == 0, err
    folder = tmp_path / 'work_dirs' / Path(path).stem / 'browse_semi'
    assert sorted(p.name for p in folder.iterdir()) == ['batch_000.png', 'batch_001.png']
    assert out.count('mean weight') == 2 and 'NO CHECKPOINT' in out
    first = (folder / 'batch_000.png').read_bytes()
    with Image.open(folder / 'batch_000.png') as picture:
        assert picture.width == 2 * page.MARGIN + columns * (150 + page.GAP)
    assert first != (folder / 'batch_001.png').read_bytes()
    assert browse(path, '--batches', 1, '--rows', 2)[0] == 0
    assert (folder / 'batch_000.png').read_bytes() == first


def test_a_branch_that_also_shows_labeled_images(page, browse, config, tmp_path):
    """Its columns are longer: labeled images stand below the unlabeled ones."""
    path = config('fixmatch_ema/fixmatch_ema',
                  "model = dict(branches=[dict(augments=[dict(type='CutMix', prob=1.0)], labeled=True)])\n")
    assert browse(path, '--batches', 1, '--out', 'all')[0] == browse(path, '--batches', 1, '--rows', 2, '--out', 'two')[
        0] == 0
    heights = [Image.open(tmp_path / folder / 'batch_000.png').height for folder in ('all', 'two')]
    assert heights[0] - heights[1] == 2 * (150 + page.GAP)


def test_columns_show_the_step(tool, page, config):
    """The cells hold the pixels of the step: colors of the labels, pale where not trained, magenta padding."""
    cfg = tool.read_config(tool.parse_args([config('fixmatch_ema/fixmatch_ema')]))
    model, iteration, _ = tool.build_model(cfg, None)
    model.labeler.threshold = 0.15
    step = tool.make_step(model, next(iter(tool.build_loader(cfg, 0))), iteration, 0)
    palette = np.arange(21, dtype=np.uint8).reshape(7, 3)
    columns = dict(page.columns_of(step, palette))
    assert list(columns) == ['weak view', 'pseudo-label', 'confidence', 'weight', 'strong view 0', 'mixed label 0',
                             'weight 0']
    strong = (255 * step.mixed[0].images).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(columns['strong view 0'], strong)
    valid = step.target.valid.numpy()
    np.testing.assert_array_equal(np.array(columns['pseudo-label'])[valid], palette[step.target.label.numpy()][valid])
    target = step.mixed[0].target
    weight = np.array(columns['weight 0'])
    np.testing.assert_array_equal(weight[target.valid.numpy()][:, 0] == 255, target.weight.numpy()[
        target.valid.numpy()] == 1)
    assert (weight[~target.valid.numpy()] == page.PADDING).all()


@pytest.mark.parametrize('bands', [1, 2, 3, 12])
def test_any_number_of_bands_is_shown(page, bands):
    images = torch.rand(2, bands, 4, 5)
    shown = page.bytes_of(images)
    assert shown.shape == (2, 4, 5, 3)
    for i in range(3):
        band = (255 * images[:, i if bands >= 3 else 0]).round().byte().numpy()
        assert (shown[..., i] == band).all()


def test_colors(page):
    label = torch.tensor([[[0, 1], [255, 1]]])
    weight = torch.tensor([[[1., 0.5], [0, 0]]])
    target = Target(label, weight, torch.tensor([[[1., 0], [0, 0]]]), torch.tensor([[[True, True], [True, False]]]))
    palette = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)
    full, faded = (page.paint_target(target, palette, fade) for fade in (False, True))
    assert full[0].tolist() == [[[200, 0, 0], [0, 100, 0]], [[255, 255, 255], [255, 0, 255]]]
    assert (full == faded).all()
    target = Target(label, torch.zeros_like(weight), weight, target.valid)
    assert page.paint_target(target, palette, True)[0, 0].tolist() == [[241, 191, 191], [191, 216, 191]]
    assert page.paint_weights(Target(label, weight, weight, target.valid))[0].tolist() == [
        [[255] * 3, [128] * 3], [[0] * 3, [255, 0, 255]]]
    low, high = page.paint_scores(torch.tensor([[[0., 1.]]]), torch.ones(1, 1, 2, dtype=torch.bool))[0, 0].astype(int)
    assert high[:2].sum() > 400 > 200 > low.sum() and low[2] > low[1]  # RGB: yellow above dark blue


def test_checkpoints(tool, browse, config, tmp_path):
    path = config('fixmatch_ema/fixmatch_ema')
    model, *_ = tool.build_model(tool.read_config(tool.parse_args([path])), None)
    state = model.state_dict()
    torch.save(dict(state_dict=state, meta=dict(iter=412)), tmp_path / 'whole.pth')
    state.pop('decode_head.conv_seg.weight')
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'part.pth')
    torch.save(dict(state_dict={'other': torch.zeros(1)}), tmp_path / 'other.pth')
    (tmp_path / 'broken.pth').write_text('no weights')
    out = browse(path, 'whole.pth', '--batches', 1)[1]
    assert 'whole.pth, iteration 412\n' in out and 'NO CHECKPOINT' not in out
    assert 'tensors are not in it, e.g. decode_head.conv_seg.weight' in browse(path, 'part.pth', '--batches', 1)[1]
    for name, message in (('other.pth', 'holds nothing of this segmentor'), ('broken.pth', 'cannot load'),
                          ('none.pth', 'checkpoint not found: none.pth')):
        status, _, err = browse(path, name, '--out', 'refused')
        assert status == 2 and message in one_error(err)
    assert not (tmp_path / 'refused').exists()


def test_what_has_no_such_step_is_refused(browse, config, tmp_path):
    more = {
        'supervised': "model = dict(type='EncoderDecoder')\n",
        'stages': "runner_type = 'SelfTrainingRunner'\n",
        'plain': "train_dataloader.update(collate_fn=dict(type='pseudo_collate'))\n",
        'loaderless': 'train_dataloader = None\n'}
    messages = {
        'supervised': "needs a semi-supervised config; model.type of", 'stages': 'trains in stages from files',
        'plain': 'semi_collate', 'loaderless': 'has no train_dataloader'}
    for name, text in more.items():
        status, out, err = browse(config('pcr/pcr', text), '--out', 'refused')
        assert status == 2 and out.count('\n') <= 1, name
        assert messages[name] in one_error(err)
    assert not (tmp_path / 'refused').exists()


def test_wrong_paths_are_one_line(browse, config, tmp_path, shapes):
    status, _, err = browse('none.py')
    assert status == 2 and one_error(err).startswith('error: cannot read the config none.py')
    status, _, err = browse(config('pcr/pcr', root=tmp_path / 'nowhere'))
    assert status == 2 and 'nowhere' in one_error(err)
    with pytest.raises(SystemExit):
        browse(config('pcr/pcr'), '--batches', 0)


def test_a_broken_image_is_named(browse, config, tmp_path):
    root = tmp_path / 'shapes'
    for folder in ('img_dir/train', 'ann_dir/train', 'img_dir/unlabeled'):
        (root / folder).mkdir(parents=True)
        Image.new('RGB' if 'img' in folder else 'L', (96, 96)).save(root / folder / '0.png')
    (root / 'img_dir/unlabeled/0.png').write_bytes(b'broken')
    status, _, err = browse(config('pcr/pcr', root=root))
    assert status == 2 and 'unlabeled/0.png' in one_error(err)


def test_classes_without_names_get_some(tool):
    dataset = type('Bare', (), dict(metainfo={}))
    classes, palette = tool.look_of(dataset, 3)
    assert classes == ['class 0', 'class 1', 'class 2'] and palette.shape == (3, 3)


def test_configs_of_the_repository_build_a_loader_without_workers(tool, config):
    cfg = Config.fromfile(config('pcr/pcr'))
    cfg.train_dataloader.prefetch_factor = 4
    assert tool.build_loader(cfg, 0).num_workers == 0
