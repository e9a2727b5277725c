import os
import os.path as osp

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from mmseg_semi.datasets import CamVidDataset, SemiDataset, UnlabeledDataset, semi_collate
from mmseg_semi.datasets.image_lists import IMG_SUFFIXES

LABELED_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=11),
    dict(type='RandomScale', ratio_range=(0.5, 2.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(24, 24)),
    dict(type='PackSegInputs'),
]
UNLABELED_PIPELINE = [t for t in LABELED_PIPELINE if t['type'] not in ('LoadAnnotations', 'CheckSegMap')]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def touch(root, *names):
    for name in names:
        path = osp.join(root, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        open(path, 'w').close()


def write_list(path, *lines):
    path.write_text('\n'.join(lines) + '\n')
    return str(path)


def names(dataset):
    folder = dataset.data_prefix['img_path']
    return [osp.relpath(dataset.get_data_info(i)['img_path'], folder) for i in range(len(dataset))]


def images(tmp_path, number=6, size=(30, 40)):
    rng = np.random.default_rng(0)
    for i in range(number):
        mmcv.imwrite(rng.integers(0, 256, size + (3, ), dtype=np.uint8), str(tmp_path / f'img/{i}.png'))
        mmcv.imwrite(rng.integers(0, 11, size, dtype=np.uint8), str(tmp_path / f'ann/{i}.png'))


def test_folder_at_every_depth(tmp_path):
    touch(tmp_path, 'b.jpg', 'a.PNG', 'x/c.JPeG', 'x/y/d.tif', 'x/y/notes.txt', '.hidden.jpg', '.thumbs/e.jpg', 'jpg')
    dataset = UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)))
    assert names(dataset) == ['a.PNG', 'b.jpg', 'x/c.JPeG', 'x/y/d.tif']
    dataset = UnlabeledDataset(data_root=str(tmp_path), data_prefix=dict(img_path='x'), img_suffix=['.TIF'])
    assert names(dataset) == ['y/d.tif']


def test_masks_are_dropped(tmp_path):
    touch(tmp_path, 'img/a.png', 'ann/a.png')
    dataset = UnlabeledDataset(data_root=str(tmp_path), data_prefix=dict(img_path='img', seg_map_path='ann'))
    info = dataset.get_data_info(0)
    assert info['img_path'] == str(tmp_path / 'img/a.png')
    assert 'seg_map_path' not in info


def test_list(tmp_path):
    touch(tmp_path, 'imgs/2007_1.5.jpg', 'imgs/sub/b.jpg', 'imgs/c.PNG', 'imgs/d.jpg')
    ids = write_list(tmp_path / 'ids.txt', '2007_1.5', '', 'sub/b', 'c.PNG', '  d  ')
    dataset = UnlabeledDataset(ids, data_prefix=dict(img_path=str(tmp_path / 'imgs')), img_suffix='.jpg')
    assert names(dataset) == ['2007_1.5.jpg', 'sub/b.jpg', 'c.PNG', 'd.jpg']
    touch(tmp_path, 'i/aachen/a_1_leftImg8bit.png', 'i/aachen/a_2_leftImg8bit.png')
    city = write_list(tmp_path / 'city.txt', 'aachen/a_1', 'aachen/a_2_leftImg8bit.png')
    dataset = UnlabeledDataset('city.txt', '_leftImg8bit.png', data_root=str(tmp_path), data_prefix=dict(img_path='i'))
    assert osp.samefile(city, dataset.ann_file)
    assert names(dataset) == ['aachen/a_1_leftImg8bit.png', 'aachen/a_2_leftImg8bit.png']


@pytest.mark.parametrize('suffix', [IMG_SUFFIXES, '.jpg'])
def test_lists_of_other_forms(tmp_path, suffix):
    """As TorchSemiSeg, Windows and file managers write them."""
    touch(tmp_path, 'img/day/a.jpg', 'img/day/b.jpg', 'img/c.jpg', 'elsewhere/d.jpg')
    ids = write_list(tmp_path / 'ids.txt', '/day/a.jpg', 'day\\b.jpg', str(tmp_path / 'img/c.jpg'),
                     str(tmp_path / 'elsewhere/d.jpg'))
    dataset = UnlabeledDataset(ids, suffix, data_prefix=dict(img_path=str(tmp_path / 'img')))
    assert names(dataset) == ['day/a.jpg', 'day/b.jpg', 'c.jpg', '../elsewhere/d.jpg']


def test_a_wrong_line_is_told_before_training(tmp_path):
    touch(tmp_path, 'img/a.jpg')
    ids = write_list(tmp_path / 'ids.txt', 'a', *(f'x/{i}' for i in range(5)))
    with pytest.raises(FileNotFoundError, match=r"ids.txt: there is no image 'x/0', 'x/1', 'x/2' \(5 of 6 lines\)"):
        UnlabeledDataset(ids, '.jpg', data_prefix=dict(img_path=str(tmp_path / 'img')))


@pytest.mark.parametrize('suffix', [IMG_SUFFIXES, '.jpg'])
def test_an_id_may_end_in_a_suffix(tmp_path, suffix):
    """make_partition.py writes `scan.tif` for `scan.tif.jpg`."""
    touch(tmp_path, 'img/scan.tif.jpg', 'img/b.tif', 'img/b.tif.jpg', 'img/c.jpg')
    write_list(tmp_path / 'ids.txt', 'scan.tif', 'b.tif')
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path='img'))
    assert names(UnlabeledDataset('ids.txt', suffix, **cfg)) == ['scan.tif.jpg', 'b.tif.jpg']
    assert names(UnlabeledDataset(exclude='ids.txt', **cfg)) == ['b.tif', 'c.jpg']


def test_a_list_without_suffixes_finds_files_of_any_format(tmp_path):
    """As make_partition.py writes it."""
    for name in ('a/1.5.jpg', 'a/2.png', 'a/2.jpg', '3.TIF'):
        (tmp_path / 'img' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'img' / name).touch()
    ids = write_list(tmp_path / 'ids.txt', '3', 'a/2', 'a/1.5')
    assert names(UnlabeledDataset(ids, data_prefix=dict(img_path=str(tmp_path / 'img')))) == [
        '3.TIF', 'a/2.jpg', 'a/1.5.jpg']
    ids = write_list(tmp_path / 'ids.txt', '3', 'a/9', 'b/1')
    with pytest.raises(FileNotFoundError, match=r"ids.txt: there is no image 'a/9', 'b/1' \(2 of 3 lines\)"):
        UnlabeledDataset(ids, data_prefix=dict(img_path=str(tmp_path / 'img')))


def test_exclude(tmp_path):
    touch(tmp_path, *(f'i/{n}' for n in ('a.jpg', 'b.jpg', 'x/a.jpg', 'x/c.png', 'y/c.png', 'y/d.png')))
    write_list(tmp_path / 'one.txt', 'a', 'x/c')
    write_list(tmp_path / 'two.txt', 'y/d.png', 'nothing')
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path='i'))
    assert names(UnlabeledDataset(exclude='one.txt', **cfg)) == ['b.jpg', 'y/c.png', 'y/d.png']
    assert names(UnlabeledDataset(exclude=['one.txt', str(tmp_path / 'two.txt')], **cfg)) == ['b.jpg', 'y/c.png']
    touch(tmp_path, 'i/b_leftImg8bit.png', 'i/c_leftImg8bit.png')
    ids = write_list(tmp_path / 'ids.txt', 'b_leftImg8bit.png', 'c_leftImg8bit.png')
    write_list(tmp_path / 'three.txt', 'c')
    assert names(UnlabeledDataset(ids, '_leftImg8bit.png', 'three.txt', **cfg)) == ['b_leftImg8bit.png']
    with pytest.raises(FileNotFoundError, match='four.txt'):
        UnlabeledDataset(exclude='four.txt', **cfg)
    write_list(tmp_path / 'all.txt', 'a', 'b', 'c', 'd', 'b_leftImg8bit', 'c_leftImg8bit')
    with pytest.raises(ValueError, match='8 of them left out'):
        UnlabeledDataset(exclude='all.txt', **cfg)


@pytest.mark.parametrize('line', ['JPEGImages/x/a.jpg SegmentationClass/x/a.png', '/x/a.jpg', '{}/x/a.jpg', 'x\\a.jpg',
                                  '/VOC/JPEGImages/x/a.jpg'])
def test_exclude_reads_published_lists(tmp_path, line):
    touch(tmp_path, 'JPEGImages/x/a.jpg', 'JPEGImages/x/b.jpg', 'JPEGImages/y/a.jpg')
    write_list(tmp_path / 'out.txt', line.format(tmp_path / 'JPEGImages'))
    for folder in ('JPEGImages', ''):
        dataset = UnlabeledDataset(data_root=str(tmp_path), data_prefix=dict(img_path=folder), exclude='out.txt')
        assert sorted(osp.basename(osp.dirname(name)) + '/' + osp.basename(name) for name in names(dataset)) == [
            'x/b.jpg', 'y/a.jpg']


def test_exclude_of_a_folder_among_several(tmp_path):
    touch(tmp_path, 'day/x/a.jpg', 'day/c.jpg', 'night/x/a.jpg', 'night/b.jpg')
    cfg = dict(data_root=str(tmp_path), folders=['day', 'night'])
    for line, left in (('day/x/a.jpg', 3), (f'{tmp_path}/day/x/a.jpg', 3), ('x/a.jpg', 2)):
        write_list(tmp_path / 'out.txt', line)
        found = names(UnlabeledDataset(exclude='out.txt', **cfg))
        assert len(found) == left and 'day/x/a.jpg' not in found


def test_an_exclude_list_that_leaves_nothing_out_is_a_mistake(tmp_path):
    touch(tmp_path, 'i/a.jpg', 'i/b.jpg')
    write_list(tmp_path / 'right.txt', 'a')
    write_list(tmp_path / 'wrong.txt', 'a_leftImg8bit.png', 'c')
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path='i'))
    with pytest.raises(ValueError, match=r"exclude list wrong.txt leaves out no image of .*/i: its 2 lines such as "
                                         "'a_leftImg8bit.png' name none of these, such as 'b.jpg'"):
        UnlabeledDataset(exclude=['right.txt', 'wrong.txt'], **cfg)
    # A list of images may have left them out before, as that of a stage of self-training.
    ids = write_list(tmp_path / 'ids.txt', 'b')
    assert names(UnlabeledDataset(ids, exclude='right.txt', **cfg)) == ['b.jpg']


def test_several_folders_with_weights(tmp_path):
    touch(tmp_path, 'pool/day/a.jpg', 'pool/day/x/b.png', 'pool/night/c.tif')
    folders = ['pool/day', dict(path='pool/night/', weight=3)]
    dataset = UnlabeledDataset(data_root=str(tmp_path), folders=folders)
    assert dataset.data_prefix['img_path'] == str(tmp_path / 'pool')
    assert names(dataset) == ['day/a.jpg', 'day/x/b.png', *['night/c.tif'] * 3]
    part = UnlabeledDataset(data_root=str(tmp_path), folders=folders, indices=2)
    assert names(part) == ['day/a.jpg', 'day/x/b.png']
    assert names(dataset.get_subset([4, 0])) == ['night/c.tif', 'day/a.jpg']
    # A line of an exclude list is relative to its folder.
    write_list(tmp_path / 'out.txt', 'x/b')
    assert names(UnlabeledDataset(data_root=str(tmp_path), folders=folders, exclude='out.txt'))[1] == 'night/c.tif'
    far = UnlabeledDataset(data_root=str(tmp_path / 'pool'), folders=[str(tmp_path / 'pool/day'), '../pool/night'])
    assert names(far) == ['day/a.jpg', 'day/x/b.png', 'night/c.tif']
    one = UnlabeledDataset(folders=[dict(path=str(tmp_path / 'pool/night'), weight=2)])
    assert names(one) == ['c.tif', 'c.tif']


@pytest.mark.parametrize('folders, error, message', [
    (['a', 'a/'], ValueError, "folder 'a' is \\(in\\) folder 'a'"),
    (['a/b', 'a'], ValueError, "folder 'a/b' is \\(in\\) folder 'a'"),
    (['a', 'link'], ValueError, "folder 'a' is \\(in\\) folder 'link'"),
    ([dict(path='a', weight=0.5)], ValueError, "weight of folder 'a' must be a whole number from 1 on, got 0.5"),
    ([dict(path='a', weight=0)], ValueError, 'got 0; to lower it, raise'),
    ([dict(path='a', wight=2)], ValueError, 'a folder is a path or dict'),
    ([''], ValueError, 'a folder is a path or dict'),
    ('a', TypeError, "folders must be a list, such as \\['a'\\]"),
    (['a', 'none'], FileNotFoundError, 'folder not found: .*/none'),
    (['a', 'empty'], ValueError, 'no unlabeled image in folder .*/empty'),
])
def test_mistakes_in_folders(tmp_path, folders, error, message):
    touch(tmp_path, 'a/b/c.jpg')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'a')
    with pytest.raises(error, match=message):
        UnlabeledDataset(data_root=str(tmp_path), folders=folders)


def test_folders_or_a_prefix(tmp_path):
    with pytest.raises(ValueError, match='give either folders or'):
        UnlabeledDataset(data_root=str(tmp_path), folders=['a'], data_prefix=dict(img_path='a'))


def test_a_list_chooses_from_folders(tmp_path):
    """As the lists that a selection in self-training writes."""
    for name in ('pool/a/0.jpg', 'pool/a/1.jpg', 'pool/b/0.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'reliable.txt').write_text('b/0.png\na/1.jpg\n')
    dataset = UnlabeledDataset(data_root=str(tmp_path), folders=['pool/a', dict(path='pool/b', weight=2)],
                               ann_file=str(tmp_path / 'reliable.txt'), pipeline=[])
    assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == [
        str(tmp_path / 'pool/b/0.png'), str(tmp_path / 'pool/a/1.jpg')]


def test_masks_beside_images_and_in_lists_are_left_out(tmp_path):
    touch(tmp_path, 'd/a.jpg', 'd/a.png', 'd/b.png')
    assert names(UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)))) == ['d/a.jpg', 'd/b.png']
    ids = write_list(tmp_path / 'ids.txt', 'd/a.jpg d/a.png', 'd/b.png\td/b.png')
    assert names(UnlabeledDataset(ids, data_prefix=dict(img_path=str(tmp_path)))) == ['d/a.jpg', 'd/b.png']


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='no/such/folder'):
        UnlabeledDataset(data_prefix=dict(img_path='no/such/folder'))
    with pytest.raises(FileNotFoundError, match='no_list.txt'):
        UnlabeledDataset('no_list.txt', data_prefix=dict(img_path=str(tmp_path)))
    with pytest.raises(ValueError, match=f'no unlabeled image in folder {tmp_path}'):
        UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)))
    with pytest.raises(ValueError, match='no unlabeled image in list .*empty.txt'):
        UnlabeledDataset(write_list(tmp_path / 'empty.txt'), data_prefix=dict(img_path=str(tmp_path)))


def test_annotations_in_the_pipeline(tmp_path):
    touch(tmp_path, 'a.png')
    with pytest.raises(ValueError, match='remove LoadAnnotations'):
        UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)), pipeline=LABELED_PIPELINE)


def test_padding_in_the_pipeline(tmp_path):
    """Nobody would know of it: it would be labeled and trained on."""
    touch(tmp_path, 'a.png')
    pipeline = [UNLABELED_PIPELINE[0], dict(type='Pad', size=(96, 96)), *UNLABELED_PIPELINE[1:]]
    with pytest.raises(ValueError, match='what Pad adds .* remove it .* set model.data_preprocessor.size'):
        UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)), pipeline=pipeline)


def camvid_like(tmp_path, **kwargs):
    return dict(type='CamVidDataset', data_root=str(tmp_path), img_suffix='.png', pipeline=LABELED_PIPELINE,
                data_prefix=dict(img_path='img', seg_map_path='ann'), **kwargs)


def unlabeled(tmp_path, **kwargs):
    return dict(type='UnlabeledDataset', data_root=str(tmp_path), data_prefix=dict(img_path='img'),
                pipeline=UNLABELED_PIPELINE, **kwargs)


def test_batches_of_a_semi_dataset(tmp_path):
    images(tmp_path)
    loader = Runner.build_dataloader(dict(
        batch_size=5, num_workers=0,
        dataset=dict(type='SemiDataset', labeled=camvid_like(tmp_path, indices=2), unlabeled=unlabeled(tmp_path)),
        sampler=dict(type='LabeledUnlabeledSampler', counts=(2, 3)),
        collate_fn=dict(type='semi_collate')), seed=0)
    assert loader.dataset.metainfo['classes'] == CamVidDataset.METAINFO['classes']
    batch = next(iter(loader))
    assert [len(batch[k]['inputs']) for k in ('labeled', 'unlabeled')] == [2, 3]
    for name, group in batch.items():
        for image, data_sample in zip(group['inputs'], group['data_samples'], strict=True):
            assert (image.dtype, image.shape[0]) == (torch.uint8, 3)
            assert max(image.shape[1:]) <= 24
            assert tuple(image.shape[1:]) == tuple(data_sample.img_shape)
            assert ('gt_sem_seg' in data_sample) == (name == 'labeled')
            if name == 'labeled':
                assert data_sample.gt_sem_seg.data.shape[1:] == image.shape[1:]


def test_semi_dataset_with_a_subset_of_classes_and_stock_parts(tmp_path):
    images(tmp_path)
    labeled = camvid_like(tmp_path, metainfo=dict(classes=('Road', 'Car')), reduce_zero_label=True)
    dataset = SemiDataset(labeled, unlabeled(tmp_path))
    assert dataset.metainfo['classes'] == ('Road', 'Car')
    assert dataset.metainfo['label_map'][3] == 0
    stock = BaseSegDataset(data_root=str(tmp_path), data_prefix=dict(img_path='img'), img_suffix='.png')
    assert len(SemiDataset(labeled, stock)) == 12


def test_semi_dataset_names_the_empty_set(tmp_path):
    images(tmp_path)
    touch(tmp_path, 'none.txt')
    with pytest.raises(ValueError, match='the labeled set .*none.txt'):
        SemiDataset(camvid_like(tmp_path, ann_file='none.txt'), unlabeled(tmp_path))
    with pytest.raises(ValueError, match='the unlabeled set .*none.txt'):
        SemiDataset(camvid_like(tmp_path), unlabeled(tmp_path, ann_file='none.txt', img_suffix='.png'))


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('content', [b'', b'no image at all', 'cut'])
def test_unreadable_files_are_named(tmp_path, backend, content):
    images(tmp_path)
    pipeline = [dict(LABELED_PIPELINE[0], imdecode_backend=backend), *LABELED_PIPELINE[1:]]
    dataset = SemiDataset(dict(camvid_like(tmp_path), pipeline=pipeline),
                          dict(unlabeled(tmp_path), pipeline=[pipeline[0], *UNLABELED_PIPELINE[1:]]))

    for path, index in (('img/2.png', 2), ('img/4.png', 10), ('ann/3.png', 3)):
        file = tmp_path / path
        file.write_bytes(file.read_bytes()[:40] if content == 'cut' else content)
        with pytest.raises((ValueError, AssertionError), match=path):
            dataset[index]
        file.unlink()
        with pytest.raises(FileNotFoundError, match=path):
            dataset[index]


@pytest.mark.parametrize('label, told', [(11, True), (255, False), (10, False)])
def test_labels_that_are_no_class_are_refused_without_checksegmap(tmp_path, label, told):
    images(tmp_path, size=(20, 20))
    mmcv.imwrite(np.full((20, 20), label, np.uint8), str(tmp_path / 'ann/2.png'))
    pipeline = [LABELED_PIPELINE[0], LABELED_PIPELINE[1], LABELED_PIPELINE[-1]]
    dataset = SemiDataset(dict(camvid_like(tmp_path), pipeline=pipeline), unlabeled(tmp_path))
    if told:
        with pytest.raises(ValueError, match=r'ann/2.png holds labels \[11\]; expected 0..10 and 255, .*CheckSegMap'):
            dataset[2]
    else:
        assert (dataset[2]['data_samples'].gt_sem_seg.data == label).all()
    assert 'gt_sem_seg' not in dataset[8]['data_samples']


def test_a_worker_names_the_unreadable_file(tmp_path):
    images(tmp_path)
    (tmp_path / 'img/2.png').write_bytes(b'')
    dataset = SemiDataset(camvid_like(tmp_path), unlabeled(tmp_path))
    loader = torch.utils.data.DataLoader(dataset, sampler=[2], num_workers=1, collate_fn=semi_collate)
    with pytest.raises(ValueError, match='img/2.png'):
        next(iter(loader))


def test_plain_concatenation(tmp_path):
    """Works with the labeled set's classes and palette written out, or with ``ignore_keys``."""
    images(tmp_path)
    parts = [camvid_like(tmp_path), unlabeled(tmp_path)]
    ConcatDataset([parts[0], unlabeled(tmp_path, metainfo=CamVidDataset.METAINFO)])
    ConcatDataset(parts, ignore_keys=['classes', 'palette', 'label_map', 'reduce_zero_label'])
    with pytest.raises((ValueError, TypeError)):
        ConcatDataset(parts)


def test_voc(tmp_path):
    images(tmp_path)
    split = write_list(tmp_path / 'split.txt', '0', '1')
    labeled = PascalVOCDataset(split, img_suffix='.png', data_root=str(tmp_path),
                               data_prefix=dict(img_path='img', seg_map_path='ann'))
    dataset = SemiDataset(labeled, unlabeled(tmp_path, exclude='split.txt'))
    assert dataset.cumulative_sizes == [2, 6]
    assert len(dataset.metainfo['classes']) == 21


def test_camvid():
    meta = CamVidDataset.METAINFO
    assert len(meta['classes']) == len(meta['palette']) == len({tuple(c) for c in meta['palette']}) == 11
    assert DATASETS.get('CamVidDataset') is CamVidDataset
