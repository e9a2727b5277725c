import os
import os.path as osp

import pytest

from mmseg_semi.datasets import image_lists
from mmseg_semi.datasets.image_lists import IMG_SUFFIXES, below, drop_twins, read_list, split_pair, strip_suffix, walk


def touch(root, *names):
    for name in names:
        path = osp.join(root, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        open(path, 'w').close()


def test_walk_mixes_suffixes_and_depths(tmp_path):
    touch(tmp_path, 'b.jpg', 'a.PNG', 'x y/c.JPeG', 'x y/z/d.tif', 'x y/notes.txt', '.hidden.jpg', '.git/e.jpg')
    assert walk(str(tmp_path), IMG_SUFFIXES) == ['a.PNG', 'b.jpg', 'x y/c.JPeG', 'x y/z/d.tif']
    assert walk(str(tmp_path), ('.tif', )) == ['x y/z/d.tif']


def test_walk_survives_links(tmp_path):
    touch(tmp_path, 'pool/z/a.jpg', 'elsewhere/b.jpg')
    (tmp_path / 'pool/z/up').symlink_to(tmp_path / 'pool')  # a loop
    (tmp_path / 'pool/again').symlink_to(tmp_path / 'pool/z')  # sorts before its target
    (tmp_path / 'pool/other').symlink_to(tmp_path / 'elsewhere')
    assert walk(str(tmp_path / 'pool'), IMG_SUFFIXES) == ['other/b.jpg', 'z/a.jpg']
    (tmp_path / 'root').symlink_to(tmp_path / 'pool')
    assert walk(str(tmp_path / 'root'), IMG_SUFFIXES) == ['other/b.jpg', 'z/a.jpg']


def test_walk_names_what_it_cannot_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='folder not found: .*nowhere$'):
        walk(str(tmp_path / 'nowhere'), IMG_SUFFIXES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'folder not found: nowhere .seen from {tmp_path}'):
        walk('nowhere', IMG_SUFFIXES)
    touch(tmp_path, 'a/b/c.jpg')
    scandir = os.scandir

    def locked(path):  # chmod does not stop root, as which tests may run
        if str(path).endswith('b'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', locked)
    with pytest.raises(ValueError, match='cannot read folder .*a/b: Permission denied'):
        walk(str(tmp_path), IMG_SUFFIXES)


def test_a_png_beside_an_image_is_its_mask(monkeypatch):
    told = []
    monkeypatch.setattr(image_lists, 'print_log', lambda text, *_: told.append(text))
    names = ['a.jpg', 'a.png', 'b.png', 'b.tif', 'c.png', 'd/a.png', 'e.bmp', 'e.jpg', 'e.png']
    assert drop_twins(names, 'folder x') == ['a.jpg', 'b.tif', 'c.png', 'd/a.png', 'e.jpg']
    assert len(told) == 1 and told[0].startswith(
        'folder x: 4 files have the name of another image and another suffix, such as a.png beside a.jpg')
    assert drop_twins(['a.png', 'b.png'], 'x') == ['a.png', 'b.png']
    assert drop_twins(['a.png', 'b.jpg'], 'x') == ['a.png', 'b.jpg']
    assert len(told) == 1


def test_strip_suffix():
    assert strip_suffix('d/b_leftImg8bit.PNG', ('.png', '_leftimg8bit.png')) == 'd/b'
    assert strip_suffix('2007_1.5', IMG_SUFFIXES) == '2007_1.5'


@pytest.mark.parametrize('line, image, mask', [
    ('img/a.jpg mask/a.png', 'img/a.jpg', 'mask/a.png'),
    ('img/a.jpg\tmask/a.png', 'img/a.jpg', 'mask/a.png'),
    ('img/a.jpg, mask/a.png', 'img/a.jpg', 'mask/a.png'),
    ('day one/a b.JPG day one/a b.PNG', 'day one/a b.JPG', 'day one/a b.PNG'),
    ('day one/a.jpg', 'day one/a.jpg', None),
    ('day, one/a', 'day, one/a', None),
    ('2007_000032', '2007_000032', None),
    ('2007_000032\t2007_000032', '2007_000032', '2007_000032'),
    ('a b.npy\tm/a b.npy', 'a b.npy', 'm/a b.npy'),
    ('a.jpg\t', 'a.jpg', None),
])
def test_split_pair(line, image, mask):
    assert split_pair(line) == (image, mask)


def test_read_list(tmp_path):
    path = tmp_path / 'ids.txt'
    path.write_bytes('\ufeffa.jpg\r\n\r\n  d/ä b.jpg \n'.encode())
    assert read_list(str(path)) == ['a.jpg', 'd/ä b.jpg']
    with pytest.raises(FileNotFoundError, match='none.txt'):
        read_list(str(tmp_path / 'none.txt'))


def test_read_list_names_a_file_in_another_encoding(tmp_path):
    path = tmp_path / 'ids.txt'
    path.write_text('a.jpg\nb.jpg\n', encoding='utf-16')
    with pytest.raises(ValueError, match='ids.txt: expected a list in UTF-8'):
        read_list(str(path))
    path.write_bytes(b'caf\xe9.jpg\n')  # a name that is no UTF-8, as its file has it
    assert [os.fsencode(name) for name in read_list(str(path))] == [b'caf\xe9.jpg']


def test_names_of_a_list_are_below_the_folder(tmp_path, monkeypatch):
    touch(tmp_path, 'img/a.jpg', 'other/b.jpg')
    (tmp_path / 'link').symlink_to('img')
    monkeypatch.chdir(tmp_path)
    real, other = str(tmp_path / 'img/a.jpg'), str(tmp_path / 'other/b.jpg')
    for folder in ('img', str(tmp_path / 'img/'), 'link'):
        assert below([real, other, '/JPEGImages/c.jpg', 'd\\e.jpg', './f//g', 'h/../i', 'j'], folder) == [
            'a.jpg', other, 'JPEGImages/c.jpg', 'd/e.jpg', 'f/g', 'i', 'j']
    assert below([real], '') == ['img/a.jpg']


def test_walk_survives_a_link_to_itself(tmp_path):
    touch(tmp_path, 'a.jpg')
    (tmp_path / 'loop').symlink_to('loop')
    assert walk(str(tmp_path), IMG_SUFFIXES) == ['a.jpg']


def test_accents_are_equal_however_they_are_written():
    assert strip_suffix('cafe\u0301.jpg', IMG_SUFFIXES) == strip_suffix('caf\u00e9.png', IMG_SUFFIXES)
