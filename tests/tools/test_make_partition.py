"""The command lines that write and check partitions."""
import importlib.util
import json
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / 'tools/dataset_converters'


@pytest.fixture
def call(capsys, monkeypatch, data):
    """Runs a tool in the folder of the data."""
    monkeypatch.chdir(data)

    def run(tool, *args):
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Namespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture
def data(tmp_path):
    """Thirty images of six videos, class 2 in one of them only; two images have no mask."""
    for i in range(32):
        folder = f'v{i // 5}'
        image = tmp_path / 'img' / folder / f'{i:02d}.jpg'
        mask = tmp_path / 'ann' / folder / f'{i:02d}.png'
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        label = np.zeros((8, 8), np.uint8)
        label[:, 4:] = 1
        label[0] = 255
        if i == 13:
            label[3, 3] = 2
        Image.fromarray(label).save(image)
        if i < 30:
            Image.fromarray(label).save(mask)
    return tmp_path


def lists(folder):
    return [(folder / f'{kind}.txt').read_text().split() for kind in ('labeled', 'unlabeled')]


def test_own_data(data, call):
    args = ('--img-dir', 'img', '--ann-dir', 'ann', '--jobs', 2)
    done = call('make_partition', *args, '--count', 5, '--out', 'splits/5')
    assert done.returncode == 0, done.stderr
    labeled, unlabeled = lists(data / 'splits/5')
    assert len(labeled) == 5 and 'v2/13' in labeled and len(unlabeled) == 27
    assert {'v6/30', 'v6/31'} < set(unlabeled) and not set(labeled) & set(unlabeled)
    info = json.loads((data / 'splits/5/partition.json').read_text())
    assert info['classes'] == [0, 1, 2] and info['labeled']['count'] == 5
    assert '30/30' in done.stderr and 'labeled.txt: 5 images' in done.stdout
    # A second run changes nothing; another draw does not overwrite.
    again = call('make_partition', *args, '--count', 5, '--out', 'splits/5')
    assert again.returncode == 0 and 'unchanged' in again.stdout
    other = call('make_partition', *args, '--fraction', '1/3', '--out', 'splits/5')
    assert other.returncode == 2 and 'never overwritten' in other.stderr and len(lists(data / 'splits/5')[0]) == 5
    # A larger fraction contains the smaller one.
    done = call('make_partition', *args, '--fraction', '1/3', '--out', 'splits/third')
    assert done.returncode == 0 and set(labeled) < set(lists(data / 'splits/third')[0])
    assert call('check_split', 'splits/5').returncode == 0


def test_groups_keep_images_without_mask_away(data, call):
    (data / 'ann/v2/10.png').unlink()
    done = call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 6, '--group-by', '^v.', '--out',
                'out')
    labeled, unlabeled = lists(data / 'out')
    assert done.returncode == 0 and labeled == [f'v2/{i}' for i in (11, 12, 13, 14)]
    assert 'v2/10' not in unlabeled and len(unlabeled) == 27
    assert 'whole groups make 4' in done.stdout and '1 images without mask' in done.stdout


def test_check_split(data, call):
    call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--out', 'out')
    labeled, unlabeled = lists(data / 'out')
    (data / 'val.txt').write_text('x/1.jpg\n')
    assert call('check_split', 'out', '--val', 'val.txt').returncode == 0
    (data / 'val.txt').write_text(f'x/1.jpg\n{unlabeled[0]}_left.png\n')
    done = call('check_split', 'out', '--val', 'val.txt', '--img-suffix', '_left.png')
    assert done.returncode == 1 and f'both unlabeled and val.txt, such as {unlabeled[0]}' in done.stdout
    (data / 'out/unlabeled.txt').write_text('\n'.join([labeled[0], *unlabeled]))
    done = call('check_split', 'out')
    assert done.returncode == 1 and 'both labeled and unlabeled' in done.stdout
    assert 'not compared, name their lists with --val' in done.stdout
    assert 'not the list that partition.json describes: 28 images, 27' in done.stdout
    (data / 'out/unlabeled.txt').write_text('\n'.join([unlabeled[0], *unlabeled]))
    done = call('check_split', 'out')
    assert done.returncode == 1 and '1 images stand twice' in done.stdout
    done = call('check_split', 'nowhere')
    assert done.returncode == 2 and 'nowhere/labeled.txt' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('labeled, unlabeled, suffix', [
    ('2007_000032', 'JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png', ()),
    ('JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png', '2007_000032', ()),
    ('aachen/aachen_000001_000019', 'leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png',
     ('--img-suffix', '_leftImg8bit.png')),
])
def test_check_split_compares_published_forms(data, call, labeled, unlabeled, suffix):
    (data / 'out').mkdir()
    (data / 'out/labeled.txt').write_text(labeled)
    (data / 'out/unlabeled.txt').write_text(unlabeled)
    done = call('check_split', 'out', *suffix)
    assert done.returncode == 1 and '1 images are both labeled and unlabeled' in done.stdout, done.stdout
    assert 'there written' in done.stdout


def test_check_split_trusts_the_form_of_its_own_lists(data, call):
    """`000` and `extra/000` of one folder are two images."""
    for i in range(4):
        for folder in ('', 'extra/'):
            for kind in ('img', 'ann'):
                path = data / f'{kind}2/{folder}{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 4), i % 2, np.uint8)).save(path)
    made = call('make_partition', '--img-dir', 'img2', '--ann-dir', 'ann2', '--count', 4, '--group-by', '^(extra/)?',
                '--out', 'out')
    labeled, unlabeled = lists(data / 'out')
    assert made.returncode == 0 and {name.rpartition('/')[0] for name in labeled} != {
        name.rpartition('/')[0] for name in unlabeled}
    done = call('check_split', 'out')
    assert done.returncode == 0, done.stdout
    (data / 'out/partition.json').unlink()  # now nothing says that the lists have one form
    done = call('check_split', 'out')
    assert done.returncode == 1 and '4 images are both labeled and unlabeled' in done.stdout


def test_mistakes_are_one_line(data, call):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(data / 'ann/v0/00.png')
    (data / 'both').mkdir()
    for name in ('a.jpg', 'a.png'):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(data / 'both' / name)
    wrong = {
        ('--img-dir', 'img', '--ann-dir', 'ann', '--count', 5): 'found mode RGB; convert it: .*convert_masks',
        ('--img-dir', 'nowhere', '--ann-dir', 'ann', '--count', 5): '--img-dir: folder not found: nowhere',
        ('--img-dir', 'img', '--ann-dir', 'ann', '--count', 99, '--no-stratify'): '30 have masks',
        ('--img-dir', 'img', '--ann-dir', 'ann', '--seg-map-suffix', '_x.png', '--count', 5): 'ends in _x.png',
        ('--img-dir', 'img', '--ann-dir', 'ann', '--fraction', '1/99'): '--fraction 1/99 of 30 images .* ask for 1/30',
        ('--img-dir', 'both', '--ann-dir', 'both', '--count', 5): '--img-suffix .jpg --seg-map-suffix .png$',
        ('--published', '.', '--family', 'voc_classic', '--setting', '1/16'): 'voc_classic: 92, 183',
    }
    for args, told in wrong.items():
        done = call('make_partition', *args, '--out', 'out')
        assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
        assert re.search(told, done.stderr), done.stderr
    assert not (data / 'out').exists()
    done = call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--out', 'both/a.png')
    assert done.returncode == 2 and '--out both/a.png is a file; name a folder' in done.stderr


def test_no_threads(call, capsys):
    with pytest.raises(SystemExit, match='2'):
        call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--jobs', 0, '--out', 'out')
    assert '--jobs must be at least 1, got 0' in capsys.readouterr().err


@pytest.mark.parametrize('content', ['[]', '{"labeled": 3}', '{', '{"labeled": {"sha256": ""}}'])
def test_a_damaged_record_of_a_partition(data, call, content):
    (data / 'out').mkdir()
    for kind in ('labeled', 'unlabeled'):
        (data / 'out' / f'{kind}.txt').write_text(kind)
    (data / 'out/partition.json').write_text(content)
    done = call('check_split', 'out')
    assert done.returncode == 2 and 'out/partition.json is damaged' in done.stderr


@pytest.mark.parametrize('values, kind, told', [
    ((0, 255), np.uint8, 'none of the 30 masks below ann shows a class but 0.*ann ann_indices --binary'),
    ((0, 65535), np.uint16, 'holds values outside 0 to 255.*binary mask of 16 bits.*--binary'),
    ((0, 300, 1000), np.uint16, 'holds values outside 0 to 255.*more than 8 bits.*--map'),
    ((0, 0.5), np.float32, r'no whole numbers.*binary mask \(0 and 0.5\).*--binary'),
])
def test_masks_of_other_values_are_refused(data, call, values, kind, told):
    for path in sorted(data.glob('ann/*/*.png')):
        Image.fromarray(np.resize(np.array(values, kind), (8, 9))).save(path.with_suffix('.tif'))
        path.unlink()
    done = call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--out', 'out')
    assert done.returncode == 2 and re.search(told, done.stderr), done.stderr
    assert not (data / 'out').exists()


def test_masks_of_other_formats_are_told(data, call):
    args = ('--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--out')
    masks = sorted(data.glob('ann/*/*.png'))
    for path in masks[:3]:
        Image.open(path).save(path.with_suffix('.gif'))
        path.unlink()
    done = call('make_partition', *args, 'some')
    assert done.returncode == 0 and re.search(
        'note: 5 images have no mask. Of the missing masks 3 lie in ann in another format, such as v0/00.gif.*'
        'convert_masks.py ann ann_indices --map', done.stderr)
    for path in masks[3:]:
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    done = call('make_partition', *args, 'all')
    assert done.returncode == 2 and re.search('no file in ann ends in .png.*missing masks 30', done.stderr)


def test_a_folder_of_lists_does_not_tell_the_family(data, call):
    names = [f'aachen/aachen_{i:06d}_000019' for i in range(2975)]
    for folder in ('lists', 'checkout/splits/cityscapes/1_16'):
        (data / folder).mkdir(parents=True)
        (data / folder / 'labeled.txt').write_text('\n'.join(names[:186]))
        (data / folder / 'unlabeled.txt').write_text('\n'.join(names[186:]))
    for family in ('cityscapes_cps', 'cityscapes_u2pl'):
        done = call('make_partition', '--published', 'lists', '--family', family, '--setting', 186, '--out', family)
        assert done.returncode == 0 and f'{family}: family as stated, not verified' in done.stdout
        name = json.loads((data / family / 'partition.json').read_text())['name']
        assert name == f'{family}/186 (family as stated, not verified)'
    done = call('make_partition', '--published', 'checkout', '--family', 'cityscapes_cps', '--setting', 186, '--out',
                'x')
    assert done.returncode == 0 and 'not verified' not in done.stdout
    assert json.loads((data / 'x/partition.json').read_text())['name'] == 'cityscapes_cps/186'


def test_published_with_the_labeled_list_only(data, call):
    names = [f'ADE_train_{i:08d}' for i in range(20210)]
    (data / 'all').mkdir()
    for name in names:
        (data / 'all' / f'{name}.jpg').touch()
    (data / 'lists').mkdir()
    (data / 'lists/labeled.txt').write_text('\n'.join(names[:158]))
    done = call('make_partition', '--published', 'lists', '--family', 'ade20k', '--setting', 158, '--img-dir', 'all',
                '--out', 'out')
    assert done.returncode == 0 and lists(data / 'out')[1] == names[158:], done.stderr


def test_a_published_partition_is_not_drawn(call, capsys):
    with pytest.raises(SystemExit, match='2'):
        call('make_partition', '--published', '.', '--family', 'coco', '--setting', 232, '--fraction', '1/16',
             '--out', 'out')
    assert '--fraction draws one; choose one' in capsys.readouterr().err


def test_masks_below_the_images_are_no_images(data, call):
    (data / 'ann').rename(data / 'img/masks')
    done = call('make_partition', '--img-dir', 'img', '--ann-dir', 'img/masks', '--count', 5, '--out', 'out')
    assert done.returncode == 0, done.stderr
    labeled, unlabeled = lists(data / 'out')
    assert len(labeled) == 5 and len(unlabeled) == 27 and not any('masks' in name for name in unlabeled)


@pytest.mark.parametrize('size', [('--count', 30), ('--fraction', 1)])
def test_all_masks_may_be_labeled_where_images_have_none(data, call, size):
    args = ('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', *size)
    done = call(*args, '--out', 'out')
    assert done.returncode == 0, done.stderr
    labeled, unlabeled = lists(data / 'out')
    assert len(labeled) == 30 and unlabeled == ['v6/30', 'v6/31']
    for name in ('30', '31'):
        (data / f'img/v6/{name}.jpg').unlink()
    done = call(*args, '--out', 'other')
    assert done.returncode == 2 and 'none would be unlabeled: ask for 1 to 29' in done.stderr
    (data / 'img/v5/x.jpg').write_bytes(b'')
    done = call(*args, '--group-by', r'v\d', '--out', 'other')
    assert done.returncode == 2 and 'the other 1 are of labeled groups' in done.stderr


def test_names_that_are_no_utf8(data, call):
    for kind, suffix in (('img', 'jpg'), ('ann', 'png')):
        os.rename(data / f'{kind}/v0/00.{suffix}', os.fsencode(data / f'{kind}/v0') + f'/caf.{suffix}'.encode().replace(
            b'caf', b'caf\xe9'))
    for _ in range(2):
        done = call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 29, '--out', 'out')
        assert done.returncode == 0, done.stderr
    assert b'v0/caf\xe9\n' in b''.join((data / f'out/{kind}.txt').read_bytes() for kind in ('labeled', 'unlabeled'))
    assert call('check_split', 'out').returncode == 0


def test_ids_that_end_in_a_suffix(data, call):
    for path in (*(data / 'img').rglob('*.jpg'), *(data / 'ann').rglob('*.png')):
        path.rename(path.with_suffix(f'.tif{path.suffix}'))
    assert call('make_partition', '--img-dir', 'img', '--ann-dir', 'ann', '--count', 5, '--out', 'out').returncode == 0
    assert 'v2/13.tif' in lists(data / 'out')[0]
    (data / 'val.txt').write_text('v2/13.tif.jpg\n')
    done = call('check_split', 'out')
    assert done.returncode == 0, done.stdout
    done = call('check_split', 'out', '--val', 'val.txt')
    assert done.returncode == 1 and '1 images are both labeled and val.txt, such as v2/13.tif' in done.stdout
