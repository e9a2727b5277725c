import os
import os.path as osp

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from mmseg_semi.datasets import FolderDataset, image_ids


def write(root, *names, values=(0, 1)):
    for name in names:
        path = osp.join(root, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        picture = np.resize(np.array(values, np.uint8), (6, 8))
        cv2.imwrite(path, picture if 'mask' in name or name.endswith('.png') else np.dstack([picture] * 3))


def dataset(root, img='images', ann='masks', **kwargs):
    return FolderDataset(data_root=str(root), data_prefix=dict(img_path=img, seg_map_path=ann),
                         metainfo=dict(classes=('a', 'b')), **kwargs)


def pairs(found, root):
    infos = [found.get_data_info(i) for i in range(len(found))]
    return [tuple(osp.relpath(info[key], root) for key in ('img_path', 'seg_map_path')) for info in infos]


def test_mirrored_trees_and_any_suffix(tmp_path):
    write(tmp_path, 'images/a.JPG', 'images/day 1/a.tif', 'images/day 1/b.jpeg', 'masks/a.png', 'masks/day 1/a.bmp',
          'masks/day 1/b.PNG', 'masks/.cache/x.png')
    found = dataset(tmp_path)
    assert pairs(found, tmp_path) == [('images/a.JPG', 'masks/a.png'), ('images/day 1/a.tif', 'masks/day 1/a.bmp'),
                                      ('images/day 1/b.jpeg', 'masks/day 1/b.PNG')]
    assert image_ids(found) == ['a', 'day 1/a', 'day 1/b']
    info = found.get_data_info(0)
    assert info['seg_fields'] == [] and info['reduce_zero_label'] is False and info['label_map'] is None


@pytest.mark.parametrize('broken', ['images/a.png', 'masks/a.png'])
def test_a_broken_file_is_named(tmp_path, broken):
    write(tmp_path, 'images/a.png', 'masks/a.png')
    (tmp_path / broken).write_bytes(b'')
    init_default_scope('mmseg')
    found = dataset(tmp_path, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
    with pytest.raises(ValueError, match=f'cannot make a sample of .*images/a.png and .*{broken}: '
                       if broken.startswith('masks') else f'cannot make a sample of .*{broken} and '):
        found[0]


def test_beside(tmp_path):
    write(tmp_path, 'd/a.jpg', 'd/a.png', 'd/x/b.tif', 'd/x/b.png')
    assert pairs(dataset(tmp_path, 'd', 'd/'), tmp_path) == [('d/a.jpg', 'd/a.png'), ('d/x/b.tif', 'd/x/b.png')]
    write(tmp_path, 'e/a.png', 'e/a_mask.png')
    assert pairs(dataset(tmp_path, 'e', 'e', seg_map_suffix='_mask.png'), tmp_path) == [('e/a.png', 'e/a_mask.png')]
    with pytest.raises(ValueError, match='no image below .*e with img_suffix .* besides masks'):
        dataset(tmp_path, 'e', 'e')


def test_one_folder_inside_the_other(tmp_path):
    write(tmp_path, 'd/a.jpg', 'd/masks/a.png', 'e/b.png', 'e/images/b.png')
    assert pairs(dataset(tmp_path, 'd', 'd/masks'), tmp_path) == [('d/a.jpg', 'd/masks/a.png')]
    assert pairs(dataset(tmp_path, 'e/images', 'e'), tmp_path) == [('e/images/b.png', 'e/b.png')]


def test_lists(tmp_path):
    write(tmp_path, 'images/a.jpg', 'images/b.tif', 'images/c.1.jpg', 'masks/a.png', 'masks/c.1.png', 'masks/other.png')
    list_file = tmp_path / 'ids.txt'
    list_file.write_text('c.1\na.jpg\n')
    assert [p[0] for p in pairs(dataset(tmp_path, ann_file='ids.txt'), tmp_path)] == ['images/c.1.jpg', 'images/a.jpg']
    for line in ('images/b.tif masks/other.png', '/images/b.tif\t/masks/other.png'):  # TorchSemiSeg's begin so
        list_file.write_text(f'{line}\n')
        assert pairs(dataset(tmp_path, '', '', ann_file='ids.txt'), tmp_path) == [('images/b.tif', 'masks/other.png')]
    for line, message in (('z', "lists 'z', but there is no such image"), ('b', "lists 'b', but there is no mask b"),
                          ('a.jpg no.png', 'there is no mask no.png')):
        list_file.write_text(f'{line}\n')
        with pytest.raises(FileNotFoundError, match=message):
            dataset(tmp_path, ann_file='ids.txt')
    list_file.write_text('\n')
    with pytest.raises(ValueError, match='ids.txt lists no image'):
        dataset(tmp_path, ann_file='ids.txt')
    with pytest.raises(FileNotFoundError, match='no.txt'):
        dataset(tmp_path, ann_file='no.txt')


def test_every_file_without_a_partner_is_told(tmp_path):
    write(tmp_path, *(f'images/{i}.jpg' for i in range(8)), 'masks/0.png', 'masks/x/9.png')
    with pytest.raises(ValueError) as error:
        dataset(tmp_path)
    text = str(error.value)
    assert 'images without mask (7): 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, ...' in text
    assert 'masks without image (1): x/9.png' in text and 'ann_file' in text


@pytest.mark.parametrize('kind, told', [('gif', '--map'), ('webp', '--map'), ('jpg', '--binary --threshold 128')])
def test_masks_of_other_formats_are_told(tmp_path, kind, told):
    write(tmp_path, *(f'images/{i}.jpg' for i in range(3)), 'masks/0.png', 'masks/7.png')
    for stem in (1, 2, 9):
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / f'masks/{stem}.{kind}')
    hint = (rf'Of the missing masks 2 lie in \S+ in another format, such as 1.{kind}, which is .*convert_masks.py '
            rf'\S+masks \S+masks_indices {told}')
    with pytest.raises(ValueError, match=rf'images without mask \(2\).*{hint}'):
        dataset(tmp_path)
    (tmp_path / 'ids.txt').write_text('0\n1\n')
    with pytest.raises(FileNotFoundError, match=rf"lists '1', but there is no mask.*{hint.replace('2 lie', '1 lie')}"):
        dataset(tmp_path, ann_file='ids.txt')
    write(tmp_path, 'own/a.jpg', 'own/b.png')
    with pytest.raises(ValueError, match='images without mask') as error:
        dataset(tmp_path, 'own', 'own')  # the only other file of that name is the image
    assert 'convert_masks' not in str(error.value)


def test_two_files_of_one_stem(tmp_path):
    write(tmp_path, 'images/a.jpg', 'images/a.tif', 'masks/a.png')
    with pytest.raises(ValueError, match="two images .* stem 'a': a.jpg and a.tif"):
        dataset(tmp_path)
    (tmp_path / 'images/a.tif').unlink()
    write(tmp_path, 'masks/a.bmp')
    with pytest.raises(ValueError, match="two masks .* stem 'a': a.bmp and a.png"):
        dataset(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='images'):
        dataset(tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    with pytest.raises(ValueError, match='no image below .*images with img_suffix'):
        dataset(tmp_path)
    with pytest.raises(ValueError, match='images without masks belong into UnlabeledDataset'):
        FolderDataset(data_root=str(tmp_path), data_prefix=dict(img_path='images'))


def test_binary_masks_are_refused(tmp_path):
    write(tmp_path, 'images/a.jpg', 'images/b.jpg')
    write(tmp_path, 'masks/a.png', 'masks/b.png', values=(0, 255))
    with pytest.raises(ValueError, match='none of the 2 masks .*python tools/dataset_converters/convert_masks.py '
                                         '.*masks .*masks_indices --binary'):
        dataset(tmp_path)
    with pytest.raises(ValueError, match='shows a class at all: with reduce_zero_label=True .* --binary'):
        dataset(tmp_path, reduce_zero_label=True)
    write(tmp_path, 'masks/b.png', values=(0, 1, 255))
    assert len(dataset(tmp_path, reduce_zero_label=True)) == 2
    assert len(dataset(tmp_path)) == 2
    write(tmp_path, 'masks/a.png', 'masks/b.png', values=(0, ))  # empty scenes alone are no reason
    assert len(dataset(tmp_path)) == 2
    write(tmp_path, 'masks/a.png', 'masks/b.png', values=(255, ))
    assert len(dataset(tmp_path)) == 2


def test_lists_of_other_forms(tmp_path):
    write(tmp_path, 'images/x/a.jpg', 'images/x/b.jpg', 'masks/x/a.png', 'masks/x/b.png')
    (tmp_path / 'list.txt').write_text(f'{tmp_path}/images/x/a.jpg {tmp_path}/masks/x/a.png\nx\\b.jpg\n')
    assert pairs(dataset(tmp_path, ann_file='list.txt'), tmp_path) == [
        ('images/x/a.jpg', 'masks/x/a.png'), ('images/x/b.jpg', 'masks/x/b.png')]


def test_a_mask_whose_accents_are_written_as_on_a_mac(tmp_path):
    write(tmp_path, 'images/caf\u00e9.jpg', 'masks/cafe\u0301.png')
    (tmp_path / 'list.txt').write_text('cafe\u0301\n')
    for ann_file in ('', 'list.txt'):
        found = dataset(tmp_path, ann_file=ann_file)
        assert pairs(found, tmp_path) == [('images/caf\u00e9.jpg', 'masks/cafe\u0301.png')]
