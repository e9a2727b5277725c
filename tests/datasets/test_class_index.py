import json
import os
import os.path as osp
import re

import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_semi.datasets import CamVidDataset, ClassIndex, SemiDataset, UnlabeledDataset, class_index, image_ids

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
CLASSES = ('sky', 'car', 'pole')


def striped(counts, size=(10, 10)):
    """A mask with the given number of pixels per label, the rest is label 0."""
    mask = np.zeros(size[0] * size[1], np.uint8)
    start = 0
    for label, number in counts.items():
        mask[start:start + number] = label
        start += number
    return mask.reshape(size)


def write(root, masks, mode='L'):
    """Images and masks of the given names."""
    for name, mask in masks.items():
        for folder in ('img', 'ann'):
            os.makedirs(osp.dirname(root / folder / name), exist_ok=True)
        Image.fromarray(np.zeros(mask.shape[:2] + (3, ), np.uint8)).save(root / f'img/{name}.png')
        image = Image.fromarray(mask)
        if mode == 'P':
            # The colors run against the indices: whoever reads gray values instead of indices gets wrong classes.
            image.putpalette([v for i in range(256) for v in (255 - i, ) * 3])
        image.save(root / f'ann/{name}.png')


def labeled(root, kind=BaseSegDataset, **kwargs):
    cfg = dict(data_root=str(root), img_suffix='.png', data_prefix=dict(img_path='img', seg_map_path='ann'),
               metainfo=dict(classes=CLASSES), pipeline=PIPELINE)
    return kind(**dict(cfg, **kwargs))


def build(root, masks, mode='L', **kwargs):
    write(root, masks, mode)
    return ClassIndex.build(labeled(root), **kwargs)


def test_area_filter(tmp_path):
    """3 of 100 pixels are enough and 2 are not, also when 60 pixels are ignored."""
    index = build(tmp_path, dict(
        a=striped({1: 3, 2: 2}), b=striped({1: 3, 2: 2, 255: 60}), c=striped({1: 2, 2: 3, 255: 60}),
        d=striped({255: 100}), e=striped({1: 50, 2: 50})))
    assert index.ids == ('a', 'b', 'c', 'd', 'e')
    assert index.lists == (('a', 'b', 'c'), ('a', 'b', 'e'), ('c', 'e'))
    assert index.areas[0] == dict(a=0.95, b=0.35, c=0.35)
    assert index.areas[1] == dict(a=0.03, b=0.03, e=0.5)


@pytest.mark.parametrize('percent', range(1, 51))
def test_every_threshold_is_exact(percent):
    """7 of 100 pixels are 0.07, although 0.07 * 100 is 7.000000000000001."""
    fractions = class_index.class_fractions(striped({1: percent, 2: percent - 1}), 3, 100)
    assert (fractions >= percent / 100).tolist()[1:] == [True, False]


@pytest.mark.parametrize('mode', ['P', 'L'])
def test_palette_and_gray(tmp_path, mode):
    index = build(tmp_path, dict(a=striped({1: 40}), b=striped({2: 40, 255: 60})), mode)
    assert Image.open(tmp_path / 'ann/a.png').mode == mode
    assert index.lists == (('a', ), ('a', ), ('b', ))


def test_uses_the_labels_of_the_dataset(tmp_path):
    """``reduce_zero_label`` and a subset of the classes act as they do in training."""
    write(tmp_path, dict(a=striped({1: 40}), b=striped({3: 10, 8: 20, 255: 70})))
    index = ClassIndex.build(labeled(tmp_path, reduce_zero_label=True, indices=1))
    assert index.lists == (('a', ), (), ())
    index = ClassIndex.build(labeled(tmp_path, CamVidDataset, metainfo=dict(classes=('Car', 'Road'))))
    assert index.areas == (dict(b=0.2), dict(b=0.1))


def test_sub_folders_and_native_size(tmp_path):
    masks = {'x/a': striped({1: 40}), 'y/a': striped({2: 60}, (20, 30)), 'a': striped({})}
    index = build(tmp_path, masks)
    assert index.ids == ('a', 'x/a', 'y/a')
    assert index.areas[1] == {'x/a': 0.4}
    assert index.areas[2] == {'y/a': 0.1}


def test_parallel_equals_serial(tmp_path, capsys):
    rng = np.random.default_rng(0)
    masks = {f'{i}': rng.integers(0, 3, (9, 11), dtype=np.uint8) for i in range(20)}
    serial = build(tmp_path, masks, min_area=0.33)
    assert '20/20' in capsys.readouterr().err
    parallel = ClassIndex.build(labeled(tmp_path), min_area=0.33, processes=2)
    assert '20/20' in capsys.readouterr().err
    assert parallel.areas == serial.areas
    slow = tuple({n: (m == c).mean() for n, m in sorted(masks.items()) if (m == c).mean() >= 0.33} for c in range(3))
    assert serial.areas == slow
    assert all(slow)


def test_ids_are_the_lines_of_a_list(tmp_path):
    (tmp_path / 'ids.txt').write_text('bonn/b_1\naachen/a.b_2\nbonn/b_1\n')
    cfg = dict(ann_file=str(tmp_path / 'ids.txt'), data_prefix=dict(img_path='/data/img'))
    city = BaseSegDataset(img_suffix='_leftImg8bit.png', **cfg)
    assert image_ids(city) == ['bonn/b_1', 'aachen/a.b_2', 'bonn/b_1']
    for suffix in ('_leftImg8bit.png', ('.png', '_leftImg8bit.png')):
        (tmp_path / 'files.txt').write_text('bonn/b_1_leftImg8bit.png\n')
        (tmp_path / 'bonn').mkdir(exist_ok=True)
        (tmp_path / 'bonn/b_1_leftImg8bit.png').touch()
        files = UnlabeledDataset(str(tmp_path / 'files.txt'), suffix, data_prefix=dict(img_path=str(tmp_path)))
        assert image_ids(files) == ['bonn/b_1']
    relative = BaseSegDataset(ann_file=str(tmp_path / 'ids.txt'), data_prefix=dict(img_path=''))
    assert image_ids(relative) == image_ids(city)


def test_ids_must_tell_images_apart(tmp_path):
    write(tmp_path, dict(a=striped({})))
    Image.new('RGB', (10, 10)).save(tmp_path / 'img/a.jpg')
    with pytest.raises(ValueError, match=r"a.jpg and .*a.png share the id 'a'"):
        (tmp_path / 'twins.txt').write_text('a.jpg\na.png\n')  # a folder would give one of the two
        image_ids(UnlabeledDataset('twins.txt', data_root=str(tmp_path), data_prefix=dict(img_path='img')))
    (tmp_path / 'up.txt').write_text('../a\n')
    with pytest.raises(ValueError, match='not below img_path'):
        image_ids(labeled(tmp_path, ann_file='up.txt'))
    union = SemiDataset(labeled(tmp_path), labeled(tmp_path))
    with pytest.raises(TypeError, match='SemiDataset'):
        image_ids(union)


def test_bad_masks_are_named(tmp_path):
    write(tmp_path, dict(a=striped({}), b=striped({3: 1})))
    with pytest.raises(ValueError, match=r'ann/b.png holds labels \[3\]; expected 0..2 or 255'):
        ClassIndex.build(labeled(tmp_path))
    with pytest.raises(ValueError, match='ann/b.png'):
        ClassIndex.build(labeled(tmp_path), processes=2)
    Image.new('RGB', (10, 10)).save(tmp_path / 'ann/b.png')
    with pytest.raises(ValueError, match=r'ann/b.png has shape \(10, 10, 3\).* mode P or L'):
        ClassIndex.build(labeled(tmp_path))
    (tmp_path / 'ann/b.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='cannot read mask .*ann/b.png'):
        ClassIndex.build(labeled(tmp_path))
    (tmp_path / 'ann/b.png').unlink()
    with pytest.raises(FileNotFoundError, match='ann/b.png'):
        ClassIndex.build(labeled(tmp_path))


def test_unfit_datasets(tmp_path):
    write(tmp_path, dict(a=striped({})))
    with pytest.raises(ValueError, match='no classes'):
        ClassIndex.build(labeled(tmp_path, metainfo=None))
    with pytest.raises(ValueError, match='one LoadAnnotations in its pipeline, found 0'):
        ClassIndex.build(labeled(tmp_path, pipeline=PIPELINE[:1]))
    with pytest.raises(TypeError, match='one dataset with a data_prefix, got ConcatDataset'):
        ClassIndex.build(DATASETS.build(dict(type='ConcatDataset', datasets=[labeled(tmp_path)] * 2)))
    (tmp_path / 'none.txt').touch()
    with pytest.raises(ValueError, match='the list is empty'):
        ClassIndex.build(labeled(tmp_path, ann_file='none.txt', serialize_data=False))


@pytest.mark.parametrize('kwargs, message', [
    (dict(min_area=0), 'min_area must be in'), (dict(min_area=1.5), 'min_area must be in'),
    (dict(exclude=[3]), 'exclude must hold classes in 0..2'), (dict(exclude=[255]), 'exclude must'),
    (dict(areas=[{}]), '1 lists for 3 classes'), (dict(areas=[{}, dict(a=.5, z=.5), {}]), r"'car' holds 1 .*\['z'\]"),
    (dict(ids=[]), 'empty'),
])
def test_arguments(kwargs, message):
    good = dict(ids=['a', 'b'], areas=[{}, dict(a=.5), {}], classes=CLASSES)
    assert ClassIndex(**good).lists == ((), ('a', ), ())
    with pytest.raises(ValueError, match=message):
        ClassIndex(**dict(good, **kwargs))


def small(ids=('a', 'b', 'c'), **kwargs):
    return ClassIndex(ids, [{}, dict(b=1 / 3, a=0.1), dict(b=0.5)], CLASSES, **kwargs)


def test_saved_and_loaded(tmp_path):
    path = str(tmp_path / 'new/class_index.json')
    index = small(min_area=0.1, exclude=[0])
    index.save(path)
    assert os.listdir(tmp_path / 'new') == ['class_index.json']
    content = json.load(open(path))
    assert (content['version'], content['min_area'], content['exclude']) == (1, 0.1, [0])
    assert content['labeled'] == ['a', 'b', 'c']
    assert re.fullmatch('[0-9a-f]{64}', content['sha256'])
    again = ClassIndex.load(path, ['c', 'b', 'a', 'a'])
    assert vars(again) == vars(index)
    assert again.lists[1] == ('a', 'b')


def test_no_leak(tmp_path):
    """An index of another labeled split is refused with both digests, whichever of the two is larger."""
    path = str(tmp_path / 'class_index.json')
    small().save(path)
    for ids in (['a', 'b'], ['a', 'b', 'c', 'd'], ['a', 'b', 'd']):
        other = ClassIndex(ids, [{}] * 3, CLASSES)
        for check in (lambda ids: ClassIndex.load(path, ids), small().check):
            with pytest.raises(ValueError, match='another labeled split') as error:
                check(ids)
            assert small().digest in str(error.value) and other.digest in str(error.value)
    assert ClassIndex(['a', 'b,c'], [{}] * 3, CLASSES).digest != ClassIndex(['a,b', 'c'], [{}] * 3, CLASSES).digest


@pytest.mark.parametrize('change, message', [
    (dict(version=2), 'version 2; expected .* version 1'), (dict(format='x'), "is 'x' version 1"),
    (dict(labeled=['a', 'b']), 'was edited'), (dict(labeled=['a']), r"class 'car' holds 1 ids .*\['b'\]"),
    (dict(areas=None), 'TypeError'),
])
def test_spoiled_files(tmp_path, change, message):
    path = str(tmp_path / 'class_index.json')
    small().save(path)
    content = json.load(open(path))
    json.dump(dict(content, **change), open(path, 'w'))
    with pytest.raises(ValueError, match=message) as error:
        ClassIndex.load(path, ['a', 'b', 'c'])
    assert path in str(error.value)


def test_no_index_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        ClassIndex.load(str(tmp_path / 'nowhere.json'), ['a'])
    for text in ('{"format"', '[]', '{}', 'null'):
        (tmp_path / 'i.json').write_text(text)
        with pytest.raises(ValueError, match='i.json is no class index'):
            ClassIndex.load(str(tmp_path / 'i.json'), ['a'])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'class_index.json'
    small().save(str(path))
    before = path.read_bytes()

    def disk_full(*_):
        assert path.read_bytes() == before  # nothing is written in place
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', disk_full)
        with pytest.raises(OSError, match='disk full'):
            small(min_area=0.1).save(str(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['class_index.json']
    small(min_area=0.1).save(str(path))
    assert path.read_bytes() != before


@pytest.mark.parametrize('number, parity, robust', [(0, 0, 0), (1, 0, 1), (2, 1, 1), (5, 2, 2), (7, 3, 3)])
def test_best_half(number, parity, robust):
    ids = [f'{i}' for i in range(10)]
    index = ClassIndex(ids, [{i: 0.2 for i in ids[:number]}, dict.fromkeys(ids, 0.1)], ('x', 'y'), exclude=[0])
    ranking = list(index.lists[0])[::-1]
    for min_keep, kept in ((0, parity), (1, robust)):
        best = index.restrict({0: ranking}, min_keep=min_keep)
        assert best.lists[0] == tuple(sorted(ranking[:kept]))
        assert best.lists[1] == index.lists[1]
        assert (best.digest, best.min_area, best.exclude) == (index.digest, index.min_area, index.exclude)
    assert len(index.lists[0]) == number


def test_restrict_arguments():
    ids = [f'{i:03d}' for i in range(100)]
    index = ClassIndex(ids, [dict.fromkeys(ids, 0.5)], ('x', ))
    assert len(index.restrict({0: ids}, ratio=0.29).lists[0]) == 29
    for ranking in ({0: ids[1:]}, {0: ids[1:] + ids[1:2]}, {0: ids[1:] + ['strange']}, {1: []}, {-1: ids}):
        with pytest.raises(ValueError, match='the ranking of class'):
            index.restrict(ranking)
    for kwargs in (dict(ratio=0), dict(ratio=1.1), dict(min_keep=-1)):
        with pytest.raises(ValueError, match='ratio must be in'):
            index.restrict({0: ids}, **kwargs)


def test_describe():
    lines = small(exclude=[2]).describe().split('\n')
    assert lines[0].startswith('3 labeled images') and '3.00%' in lines[0]
    assert re.search(r'0 sky +0 images +0.0%, no guide$', lines[1])
    assert re.search(r'1 car +2 images +66.7%, median area 21.7%$', lines[2])
    assert re.search(r'2 pole +1 images +33.3%, median area 50.0%, not queried$', lines[3])
