"""tools/check_dataset.py: every finding on files made here, exit statuses, the page, mistakes of the caller."""
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'check_dataset.py'
CLASSES = ('ground', 'tree', 'car')

CONFIG = '''
custom_imports = dict(imports=['mmseg_semi'])
default_scope = 'mmseg'
root = {root!r}
labeled = dict(
    type='BaseSegDataset', data_root=root, metainfo=dict(classes={classes!r}), img_suffix='.png',
    serialize_data=False,  # else mmengine collects garbage for each list
    data_prefix=dict(img_path='train', seg_map_path='train_masks'),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
unlabeled = dict(
    type='UnlabeledDataset', data_root=root, data_prefix=dict(img_path='unlabeled'), serialize_data=False,
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')])
train_dataloader = dict(dataset=dict(type='SemiDataset', labeled=labeled, unlabeled=unlabeled))
val_dataloader = dict(dataset=dict(labeled, data_prefix=dict(img_path='val', seg_map_path='val_masks')))
test_dataloader = val_dataloader
model = dict(data_preprocessor=dict(mean=[0, 0, 0]), decode_head=dict(num_classes={num_classes}))
'''


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        yield importlib.import_module('check_dataset')


class Data:
    """A small data set that a test spoils, and its config."""

    def __init__(self, root):
        self.root, self.rng = root, np.random.default_rng(0)
        for folder, count in (('train', 4), ('unlabeled', 5), ('val', 3)):
            (root / folder).mkdir()
            for i in range(count):
                self.image(f'{folder}/{i}.png')
                if folder != 'unlabeled':
                    self.mask(f'{folder}_masks/{i}.png', np.arange(24 * 32).reshape(24, 32) % 3)
        self.write_config()

    def image(self, name, size=(24, 32, 3), **options):
        path = self.root / name
        Image.fromarray(self.rng.integers(0, 256, size, dtype=np.uint8)).save(path, **options)
        return path

    def mask(self, name, labels, dtype=np.uint8):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(labels).astype(dtype)).save(path)
        return path

    def write_config(self, more='', classes=CLASSES, num_classes=3):
        self.config = self.root / 'config.py'
        self.config.write_text(CONFIG.format(root=str(self.root), classes=classes, num_classes=num_classes) + more)


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'data').mkdir()
    return Data(tmp_path / 'data')


@pytest.fixture
def check(tool, data, tmp_path, capsys, monkeypatch):
    """Function that checks ``data``: exit status, findings {code: finding}, the whole report, the page."""
    monkeypatch.chdir(tmp_path)

    def run(*options):
        status = tool.main([str(data.config), '--json', '--workers', '1', '--html', 'report/page.html', *options])
        printed, complaint = capsys.readouterr()
        assert printed, complaint
        report = json.loads(printed.splitlines()[-1])
        codes = {finding['code']: finding for finding in report['findings']}
        assert all(printed.count(f'[{code}]') >= 1 for code in codes)
        return status, codes, report, (tmp_path / 'report/page.html').read_text()

    return run


def test_clean_data(check):
    status, findings, report, page = check('--hash')
    assert (status, findings) == (0, {})
    sources = {source['name']: source for source in report['sources']}
    assert {name: (source['images'], source['masks']) for name, source in sources.items()} == {
        'labeled': (4, 4), 'unlabeled': (5, 0), 'val': (3, 3)}
    assert report['same'] == [dict(name='test', same_as='val')]
    assert [(row['name'], row['share'], row['images']) for row in sources['val']['classes']] == [
        (name, pytest.approx(1 / 3), 3) for name in CLASSES]
    assert sources['labeled']['smallest'] == sources['labeled']['largest'] == [24, 32]
    assert page.count('src="data:image/jpeg;base64,') == 12 and 'http' not in page
    assert check()[0] == 0  # a second time, over the old page


def test_unlabeled_masks_are_never_opened(check, data):
    more = ("unlabeled.update(type='BaseSegDataset', img_suffix='.png', data_prefix=dict(img_path='unlabeled', "
            "seg_map_path='unlabeled_masks'))\n")
    data.write_config(more)
    assert check()[:2] == (0, {})


@pytest.mark.parametrize('share', [0, 0.5, 0.95])
@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_broken_images(check, data, suffix, share):
    path = data.image('unlabeled/broken.png' if suffix == 'png' else 'unlabeled/broken.jpg', (60, 80, 3))
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    status, findings, report, page = check()
    assert status == 1 and set(findings) == {'broken_image'}
    assert findings['broken_image']['count'] == 1 and findings['broken_image']['source'] == 'unlabeled'
    assert 'broken.' in findings['broken_image']['examples'][0]
    assert report['sources'][1]['broken'] == 1 and 'cannot be shown' in page


def test_broken_and_missing_masks(check, data):
    (data.root / 'train_masks/0.png').unlink()
    (data.root / 'train_masks/1.png').write_bytes(b'')
    (data.root / 'val_masks/1.png').write_bytes((data.root / 'val_masks/1.png').read_bytes()[:60])
    (data.root / 'val_masks/2.png').write_text('no picture')
    status, findings, report, _ = check()
    assert status == 1 and set(findings) == {'missing_mask', 'broken_mask'}
    assert [f['count'] for f in report['findings'] if f['code'] == 'broken_mask'] == [1, 2]
    assert '0 bytes' in str(report['findings']) and report['sources'][2]['masks'] == 1


def test_missing_images(check, data):
    (data.root / 'list.txt').write_text('0\nnone\n1\n')
    data.write_config("labeled.update(ann_file='list.txt')\n")
    status, findings, *_ = check()
    assert status == 1 and findings['missing_image']['examples'] == [str(data.root / 'train/none.png')]


def test_wrong_labels_and_their_hints(check, data):
    data.mask('train_masks/2.png', np.full((24, 32), 7))
    status, findings, _, page = check()
    assert status == 1 and set(findings) == {'wrong_labels'}
    assert findings['wrong_labels']['count'] == 1 and findings['wrong_labels']['examples'][0].endswith('2.png: 7')
    assert 'expected 0..2 or 255' in findings['wrong_labels']['hint'] and 'convert_masks' in page
    for i in range(4):
        data.mask(f'train_masks/{i}.png', 1 + np.arange(24 * 32).reshape(24, 32) % 3)
    assert 'reduce_zero_label=True' in check()[1]['wrong_labels']['hint']
    data.write_config('labeled.update(reduce_zero_label=True)\n')
    assert check()[:2] == (0, {})


def test_label_map_is_applied(check, data):
    data.write_config("labeled.update(type='ShapesDataset', metainfo=dict(classes=('disk', 'background', 'box')))\n"
                      "val_dataloader['dataset'].update(type='ShapesDataset', metainfo=labeled['metainfo'])\n")
    for i in range(4):
        data.mask(f'train_masks/{i}.png', np.minimum(np.arange(24 * 32).reshape(24, 32) // 200, 3))
    status, _, report, _ = check()
    rows = {row['name']: row['pixels'] for row in report['sources'][0]['classes']}
    # Label 3 (triangle) is left out of the classes and so ignored.
    assert status == 0 and rows == dict(background=4 * 200, disk=4 * 200, box=4 * 200)
    assert report['sources'][0]['ignored_share'] == pytest.approx(168 / 768)


def test_binary_masks(check, data):
    for folder, count in (('train', 4), ('val', 3)):
        for i in range(count):
            data.mask(f'{folder}_masks/{i}.png', 255 * (np.arange(24 * 32).reshape(24, 32) % 2))
    data.write_config(classes=('ground', 'tree'), num_classes=2)
    status, findings, report, _ = check()
    assert status == 1 and set(findings) == {'binary_masks'} and len(report['findings']) == 2
    assert "'tree' is never trained" in findings['binary_masks']['message']
    masks = data.root / 'val_masks'  # the finding of the validation set is the later one
    assert findings['binary_masks']['hint'] == (
        f'python tools/dataset_converters/convert_masks.py {masks} {masks}_indices --binary')


def test_gray_masks_of_two_values(check, data):
    for folder, count in (('train', 4), ('val', 3)):
        for i in range(count):
            data.mask(f'{folder}_masks/{i}.png', 128 * (np.arange(24 * 32).reshape(24, 32) % 2))
    data.write_config(classes=('ground', 'tree'), num_classes=2)
    assert check()[1]['wrong_labels']['hint'].endswith('--binary')


def test_masks_of_the_wrong_kind(check, data):
    labels = np.arange(24 * 32).reshape(24, 32) % 3
    data.image('train_masks/0.png')
    data.image('train_masks/1.png', (24, 32, 4))
    data.mask('train_masks/2.png', 300 * labels, np.uint16)
    data.mask('train_masks/3.png', labels, np.uint16)  # fits
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'color_mask', 'wide_mask'}
    assert findings['color_mask']['count'] == 2 and 'mode RGBA' in findings['color_mask']['examples'][1]
    assert findings['wide_mask']['examples'][0].endswith('2.png holds values outside 0 to 255')
    for finding in findings.values():
        assert f'convert_masks.py {data.root}/train_masks --list' in finding['hint'] and '--map' in finding['hint']


def test_palette_and_one_bit_masks_are_indices(check, data):
    labels = (np.arange(24 * 32).reshape(24, 32) % 3).astype(np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette(data.rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture.save(data.root / 'train_masks/0.png')
    Image.fromarray(labels > 1).save(data.root / 'train_masks/1.png')
    assert check()[:2] == (0, {})


def test_sizes(check, data):
    data.mask('train_masks/2.png', np.zeros((24, 33)))
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90 degrees: the image loads as 32 x 24 (height, width)
    data.image('train/0.png', exif=turned)
    mirrored = Image.Exif()
    mirrored[0x0112] = 2
    data.image('val/0.png', exif=mirrored)
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'size_mismatch', 'exif_size', 'exif'}
    assert '32x24, ' in findings['size_mismatch']['examples'][0] and '33x24' in findings['size_mismatch']['examples'][0]
    assert '0.png is 24x32' in findings['exif_size']['examples'][0]


def test_warnings_do_not_fail(check, data):
    data.image('unlabeled/alpha.png', (24, 32, 4))
    Image.fromarray(data.rng.integers(0, 65536, (24, 32)).astype(np.uint16)).save(data.root / 'unlabeled/wide.png')
    data.mask('train_masks/1.png', np.full((24, 32), 255))
    status, findings, *_ = check()
    assert status == 0 and set(findings) == {'alpha', 'wide_image', 'empty_mask'}
    assert {finding['level'] for finding in findings.values()} == {'warning'}


def test_missing_classes(check, data):
    for i in range(4):
        data.mask(f'train_masks/{i}.png', np.arange(24 * 32).reshape(24, 32) % 2)
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'missing_class'}
    assert findings['missing_class']['message'] == ('no labeled image shows car, but the evaluation does: their IoU '
                                                    'will be 0')
    for i in range(3):
        data.mask(f'val_masks/{i}.png', np.arange(24 * 32).reshape(24, 32) % 2)
    status, findings, *_ = check()
    assert status == 0 and findings['missing_class']['level'] == 'warning'


def test_leaks_by_path(check, data):
    os.symlink(data.root / 'val/0.png', data.root / 'unlabeled/link.png')
    os.symlink(data.root / 'train/1.png', data.root / 'unlabeled/other.png')
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'leak', 'overlap'}
    assert findings['leak']['source'] == 'unlabeled, val' and findings['leak']['count'] == 1
    assert findings['overlap']['source'] == 'labeled, unlabeled' and findings['overlap']['level'] == 'warning'


def test_leaks_by_content(check, data):
    shutil.copy(data.root / 'val/0.png', data.root / 'train/3.png')
    shutil.copy(data.root / 'unlabeled/0.png', data.root / 'unlabeled/again.png')
    assert check()[:2] == (0, {})
    status, findings, *_ = check('--hash')
    assert status == 1 and set(findings) == {'leak', 'double'}
    assert findings['leak']['examples'] == [f'{data.root}/train/3.png = {data.root}/val/0.png']
    assert findings['double']['count'] == 1 and findings['double']['source'] == 'unlabeled'


def test_a_list_that_names_an_image_twice(check, data):
    (data.root / 'list.txt').write_text('0\n1\n0\n')
    data.write_config("unlabeled.update(ann_file='list.txt', img_suffix='.png')\n")
    status, findings, *_ = check('--hash')
    assert status == 0 and set(findings) == {'double'} and findings['double']['message'].endswith('by path')


def test_val_and_test_that_overlap(check, data):
    (data.root / 'list.txt').write_text('0\n1\n')
    data.write_config("test_dataloader = dict(dataset=dict(val_dataloader['dataset'], ann_file='list.txt'))\n")
    status, findings, report, _ = check()
    assert (status, report['same']) == (0, []) and findings['overlap']['source'] == 'val, test'


def test_classes_that_disagree(check, data):
    data.write_config("val_dataloader['dataset'].update(metainfo=dict(classes=('ground', 'car', 'tree')))\n",
                      num_classes=4)
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'num_classes', 'class_names'}
    assert "class 1 is 'tree' and 'car'" in findings['class_names']['message']
    assert 'num_classes is 4' in findings['num_classes']['message']


def test_other_loaders(check, data, monkeypatch):
    """Images that only the pipeline's own loader can read; one of them it cannot."""
    for path in sorted((data.root / 'unlabeled').iterdir()):
        np.save(path.with_suffix('.npy'), np.zeros((24, 32, 3), np.float32))
        path.unlink()
    np.save(data.root / 'unlabeled/0.npy', np.array([{}], dtype=object), allow_pickle=True)
    monkeypatch.syspath_prepend(data.root)
    (data.root / 'array_loader.py').write_text("import numpy as np\nfrom mmcv.transforms import BaseTransform\n"
                      "from mmseg_semi.registry import TRANSFORMS\n"
                      "@TRANSFORMS.register_module(force=True)\nclass LoadArray(BaseTransform):\n"
                      "    def transform(self, results):\n"
                      "        results['img'] = np.load(results['img_path'])\n        return results\n")
    data.write_config("custom_imports = dict(imports=['mmseg_semi', 'array_loader'])\n"
                      "unlabeled.update(img_suffix='.npy', pipeline=[dict(type='LoadArray')])\n")
    status, findings, report, page = check()
    assert status == 1 and set(findings) == {'broken_image'} and findings['broken_image']['count'] == 1
    assert report['sources'][1]['kinds'] == {'NPY': 4} and page.count('cannot be shown') == 1


def test_weighted_folders_are_looked_at_once(tool):
    """A data set whose folders have weights lists images several times on purpose."""
    sources = importlib.import_module('dataset_check.sources')
    paths = ['a', 'b', 'b', 'c', 'b', 'c']
    parts = dict(folders=[types.SimpleNamespace(weight=1), types.SimpleNamespace(weight=3)],
                 pipeline=types.SimpleNamespace(transforms=[]))
    dataset = type('Weighted', (), dict(parts, __len__=lambda self: len(paths),
                                        get_data_info=lambda self, i: dict(img_path=paths[i])))()
    source = sources.Source('unlabeled', 'unlabeled', dataset, sources.Model())
    assert list(source.places) == [0, 1, 3] and len(source) == 3
    dataset.folders[1].weight = 1
    assert list(sources.Source('unlabeled', 'unlabeled', dataset, sources.Model()).places) == list(range(6))


def test_pipelines_are_tried(check, data):
    """The first sound sample of a source meets its whole pipeline."""
    (data.root / 'unlabeled/0.png').write_bytes(b'')
    data.write_config("unlabeled['pipeline'].insert(1, dict(type='StrongAugment', augments=[]))\n")
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'broken_image', 'pipeline'}
    assert findings['pipeline']['count'] == 1 and findings['pipeline']['source'] == 'unlabeled'
    assert 'unlabeled/1.png: StrongAugment: KeyError' in findings['pipeline']['examples'][0]


def test_twins_of_many_equal_files(tool, tmp_path):
    """As pairs of all would tell, but without visiting all pairs: a black frame may be there ten thousand times."""
    leaks = importlib.import_module('dataset_check.leaks')
    rng = random.Random(0)
    tallies = [types.SimpleNamespace(files=[(place, f'{real}{place % 2}', real, 1) for place, real in enumerate(
        rng.choices('abcdef', k=size))]) for size in (6, 0, 7)]
    keys = dict(a='x', b='x', c='x', d='y', e='y', f='z')
    expected = {}
    files = [(number, *file) for number, tally in enumerate(tallies) for file in tally.files]
    for one, two in itertools.combinations(files, 2):
        for by in ['path'] * (one[3] == two[3]) + ['content'] * (one[3] != two[3] and keys[one[3]] == keys[two[3]]):
            expected.setdefault((by, one[0], two[0]), set()).add(one[1])
    found = {(o.by, tallies.index(o.first), tallies.index(o.second)): (o.count, [place for _, place in o.examples])
             for o in leaks.overlaps(tallies, keys)}
    assert len(found) == 6 and found == {key: (len(places), sorted(places)[:5]) for key, places in expected.items()}
    many = types.SimpleNamespace(files=[(place, str(place), str(place), 1) for place in range(20000)])
    found, = leaks.overlaps([many], {str(place): 'black' for place in range(20000)})
    assert found.count == 19999 and found.examples[0] == ('0 = 1', 0)


def test_a_killed_worker_is_told(tool):
    scan, common = (importlib.import_module(f'dataset_check.{name}') for name in ('scan', 'common'))
    pool = scan.make_pool([], 1)
    with pytest.raises(common.UserError, match='--workers'):
        list(scan.spread(pool, os._exit, [1, 1]))
    pool.shutdown()


def test_channels(check, data):
    data.write_config("model['data_preprocessor']['mean'] = [0]\n")
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'channels'}


def test_plain_supervised_and_concatenated_sets(check, data):
    data.write_config("half = dict(labeled, indices=2)\n"
                      "train_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[labeled, half]))\n")
    status, findings, report, _ = check()
    assert status == 0 and [s['name'] for s in report['sources']] == ['labeled.0', 'labeled.1', 'val']
    assert findings['double']['count'] == 2 and set(findings) == {'double'}
    data.write_config("train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=labeled, times=3))\n")
    assert check()[2]['sources'][0]['images'] == 4


def test_self_training(check, data):
    """Its plan names a supervised loader and, at the top, the images that stages label."""
    shutil.copy(data.root / 'val/0.png', data.root / 'unlabeled/again.png')
    data.write_config("self_training = dict(stages=[dict(name='sup', type='TrainStage')])\n"
                      "unlabeled['pipeline'] = []\ntrain_dataloader = dict(dataset=labeled)\n")
    status, findings, report, _ = check('--hash')
    assert [source['name'] for source in report['sources']] == ['labeled', 'unlabeled', 'val']
    assert status == 1 and set(findings) == {'leak'} and findings['leak']['source'] == 'unlabeled, val'


def test_labeled_set_without_annotations(check, data):
    data.write_config("labeled.update(pipeline=unlabeled['pipeline'])\n")
    status, findings, *_ = check()
    assert status == 1 and findings['no_mask']['source'] == 'labeled' and 'LoadAnnotations' in findings['no_mask'][
        'examples'][0]


def test_names_are_escaped(check, data):
    bad = '<script>alert(1)</script>&"'.replace('/', '')
    data.write_config(classes=('<b>ground', 'tree', 'car'))
    data.image(f'unlabeled/{bad}.png')
    (data.root / f'unlabeled/{bad}2.png').write_bytes(b'')
    odd = os.path.join(os.fsencode(data.root), b'unlabeled', b'caf\xe9.png')  # latin-1 on a UTF-8 system
    shutil.copy(data.root / 'unlabeled/0.png', odd)
    status, findings, _, page = check()
    assert status == 1 and set(findings) == {'broken_image'}
    assert '<script>' not in page and '<b>ground' not in page
    assert '&lt;b&gt;ground' in page and '&lt;script&gt;' in page and 'caf\\xe9.png' in page


@pytest.mark.parametrize('spoil, message', [
    (lambda data: data.config.unlink(), 'cannot read the config'),
    (lambda data: data.config.write_text('a = ('), 'cannot read the config'),
    (lambda data: data.config.write_text('a = 1'), 'the config has no train_dataloader'),
    (lambda data: data.write_config("train_dataloader = None\nval_dataloader['dataset'].update(type='NoDataset')\n"),
     'cannot build val_dataloader.dataset, test_dataloader.dataset: KeyError'),
])
def test_mistakes_in_the_config_are_one_line(tool, data, capsys, monkeypatch, tmp_path, spoil, message):
    monkeypatch.chdir(tmp_path)
    spoil(data)
    assert tool.main([str(data.config), '--workers', '1']) == 2
    printed = capsys.readouterr()
    last = printed.err.splitlines()[-1]  # a log of the framework may stand above it
    assert last.startswith('error: ') and printed.err.count('error: ') == 1 and message in last
    assert '+--' not in printed.out
    assert not (tmp_path / 'work_dirs').exists()


EMPTY = 'it holds no image: look at data_root'


@pytest.mark.parametrize('more, setting, message', [
    ("labeled.update(type='NoDataset')", 'train_dataloader.dataset.labeled', 'NoDataset'),
    ("unlabeled.update(data_prefix=dict(img_path='none'))", 'train_dataloader.dataset.unlabeled',
     'none (relative paths'),
    ("labeled.update(ann_file='none.txt')", 'train_dataloader.dataset.labeled', 'none.txt'),
    ("labeled.update(img_suffix='.gif')", 'train_dataloader.dataset.labeled', EMPTY),
    ("labeled.update(img_suffix='.gif', serialize_data=True)", 'train_dataloader.dataset.labeled', EMPTY),
    ("val_dataloader['dataset'].update(img_suffix='.gif', serialize_data=True)",
     'val_dataloader.dataset, test_dataloader.dataset', EMPTY),
    ("self_training = dict(stages=[1])\nunlabeled['data_prefix']['img_path'] = 'none'\n"
     'train_dataloader = dict(dataset=labeled)', 'unlabeled', 'none'),
    ("train_dataloader['dataset']['lazy'] = True", 'train_dataloader.dataset', 'lazy'),
])
def test_what_cannot_be_built_does_not_keep_the_rest_from_being_checked(check, data, more, setting, message):
    (data.root / 'val/0.png').write_bytes(b'')
    data.write_config(f'{more}\n')
    status, findings, report, page = check()
    failed = findings.pop('cannot_build')
    assert status == 1 and failed['source'] == setting and message in failed['message']
    assert setting in page and set(findings) <= {'broken_image'}
    checked = {source['name'] for source in report['sources']}
    assert checked == {'labeled', 'unlabeled', 'val'} - {setting.split('.')[-1], 'val' if 'val' in setting else ''}


def test_every_image_without_mask_is_in_the_report(check, data):
    """FolderDataset refuses images without a partner; the other sets are checked all the same."""
    (data.root / 'train_masks/1.png').unlink()
    (data.root / 'train_masks/3.png').rename(data.root / 'train_masks/three.png')
    data.write_config("labeled.update(type='FolderDataset')\n")
    status, findings, *_ = check()
    assert status == 1 and set(findings) == {'cannot_build'}
    assert 'images without mask (2): 1.png, 3.png; masks without image (1): three.png' in \
        findings['cannot_build']['message']


def test_mistakes_on_the_command_line(tool, data, capsys, tmp_path):
    for number in ('0', 'x', '-1'):
        with pytest.raises(SystemExit) as error:
            tool.main([str(data.config), f'--workers={number}'])
        assert error.value.code == 2 and 'must be a whole number from 1 on' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert tool.main([str(data.config), '--html', str(tmp_path / 'file/page.html')]) == 2
    assert 'images and masks' not in capsys.readouterr().err  # told before the long work
    assert tool.main([str(data.config), '--html', str(tmp_path)]) == 2
    assert 'is a folder' in capsys.readouterr().err


def test_order_does_not_depend_on_the_workers(check, data):
    for i in range(40):
        data.mask(f'train_masks/more{i:02}.png', np.full((24, 32), 9))
        data.image(f'train/more{i:02}.png')
    one, three = check('--workers', '1'), check('--workers', '3')
    assert one[2] == three[2] and one[3] == three[3]
    assert one[1]['wrong_labels']['count'] == 40
    assert [re.search(r'more\d\d', e).group() for e in one[1]['wrong_labels']['examples']] == [
        f'more0{i}' for i in range(5)]


@pytest.mark.slow
def test_interrupted(data, tmp_path):
    """Ctrl-C while workers are busy: status 130, no page, no part of one, no process left."""
    large = data.image('unlabeled/large.png', (1500, 1500, 3), compress_level=1)
    for i in range(200):
        os.link(large, large.with_stem(f'large{i}'))
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(
        [sys.executable, '-u', str(TOOL), str(data.config), '--workers', '2', '--html', str(tmp_path / 'page.html')],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        # A shell in the background hands an ignored SIGINT down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    printed = b''
    while b'images and masks' not in printed:
        more = os.read(process.stderr.fileno(), 4096)
        assert more, printed
        printed += more
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and b'Traceback' not in rest and b'interrupted' in rest
    assert not list(tmp_path.glob('page*'))
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_check_speed(tmp_path):
    """The timing of the docs, with few images; its data are gone afterwards."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'TMPDIR': str(tmp_path)}
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/analysis_tools/check_speed.py'), '--json']
    done = subprocess.run([*command, '--images', '12', '--workers', '1'], cwd=tmp_path, env=env, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result['images'] == 12 and result['seconds'] > 0 and result['workers'] == 1
    assert result['images_per_second'] == pytest.approx(12 / result['seconds'], rel=0.2)
    assert not list(tmp_path.iterdir())
    refused = subprocess.run([*command, '--images', '3'], cwd=tmp_path, env=env, text=True, capture_output=True)
    assert refused.returncode == 2 and 'at least 10' in refused.stderr


def test_masks_of_fractions(check, data):
    data.mask('train_masks/0.tif', np.arange(24 * 32).reshape(24, 32) % 3 / 2, np.float32)
    (data.root / 'train_masks/0.tif').rename(data.root / 'train_masks/0.png')
    status, findings, *_ = check()
    assert status == 1 and findings['wide_mask']['examples'][0].endswith('0.png holds values that are no whole numbers')


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_colors_of_16_bits(check, data, suffix):
    """Pillow calls them RGB."""
    pixels = data.rng.integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    cv2.imwrite(str(data.root / f'unlabeled/wide.{suffix}'), pixels)
    status, findings, *_ = check()
    assert status == 0 and set(findings) == {'wide_image'}


def test_masks_in_the_pool(check, data):
    for i in range(3):
        data.mask(f'unlabeled/masks/{i}.png', np.zeros((24, 32)))
    data.mask('unlabeled/gray/x.png', np.zeros((24, 32)))  # the name of no image
    status, findings, *_ = check()
    assert status == 0 and set(findings) == {'masks_in_pool'}
    assert 'unlabeled/masks holds 3 PNGs of one channel' in findings['masks_in_pool']['message']


def test_the_report_is_printed_though_the_page_cannot_be_written(tool, data, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(tool, 'write_text', full)
    assert tool.main([str(data.config), '--workers', '1']) == 2
    printed, complaint = capsys.readouterr()
    assert 'ready to train' in printed and 'No space left' in complaint


def test_a_reason_with_a_name_that_is_no_utf8(check, data):
    odd = os.fsdecode(b'caf\xe9')
    data.write_config(f"\nval_dataloader['dataset'].update(type='FolderDataset', data_prefix=dict(\n"
                      f"    img_path={ascii('val/' + odd)}, seg_map_path='val_masks'))\n")
    status, findings, _, page = check()
    assert status == 1 and 'val/caf\\xe9' in findings['cannot_build']['message'] and 'caf\\xe9' in page


def test_the_command_for_masks_beside_images(check, data):
    for i in range(4):
        data.mask(f'train/{i}_mask.png', 128 * (np.arange(24 * 32).reshape(24, 32) % 2))
    data.write_config("\nlabeled.update(type='FolderDataset', seg_map_suffix='_mask.png',\n"
                      "    data_prefix=dict(img_path='train', seg_map_path='train'))\n")
    assert check()[1]['wrong_labels']['hint'].endswith(
        f'{data.root}/train {data.root}/train_indices --suffix _mask.png --map classes.txt')
