import builtins
import os
import os.path as osp
import shutil

import cv2
import numpy as np
import pytest

from mmseg_semi.datasets import UnlabeledDataset
from mmseg_semi.datasets.exclusion import Exclusion

RNG = np.random.default_rng(0)


def write(root, *names, size=(6, 8)):
    for name in names:
        path = osp.join(root, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        mask = 'masks/' in name
        cv2.imwrite(path, RNG.integers(0, 2 if mask else 256, size if mask else size + (3, ), dtype=np.uint8))


def labeled(root, part='labeled', **kwargs):
    return dict(type='FolderDataset', data_root=str(root), metainfo=dict(classes=('a', 'b')),
                data_prefix=dict(img_path=f'{part}/images', seg_map_path=f'{part}/masks'), **kwargs)


def pool(root, **kwargs):
    dataset = UnlabeledDataset(data_root=str(root), **kwargs)
    return [osp.relpath(dataset.get_data_info(i)['img_path'], root) for i in range(len(dataset))]


@pytest.fixture
def root(tmp_path):
    for part in ('labeled', 'val'):
        write(tmp_path / part, 'images/a.jpg', 'masks/a.png', 'images/d/b.jpg', 'masks/d/b.png')
    write(tmp_path, 'more/x.jpg', 'more/y.png')
    return tmp_path


def test_a_pool_that_holds_everything(root):
    sets = [labeled(root), labeled(root, 'val')]
    assert pool(root, exclude_sets=sets) == ['more/x.jpg', 'more/y.png']
    # A mask of no listed image is a mask nevertheless.
    (root / 'one.txt').write_text('a\n')
    assert pool(root, exclude_sets=[labeled(root, ann_file='one.txt'), sets[1]]) == [
        'labeled/images/d/b.jpg', 'more/x.jpg', 'more/y.png']
    wrapped = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=sets[0]), sets[1]])
    assert pool(root, exclude_sets=[wrapped]) == ['more/x.jpg', 'more/y.png']


def test_by_path_sees_links_and_other_suffixes(root):
    (root / 'more/link.jpg').symlink_to(root / 'val/images/a.jpg')
    (root / 'again').symlink_to(root / 'labeled/images')
    shutil.copy(root / 'more/y.png', root / 'val/images/d/z.png')
    write(root, 'val/images/d/z.webp', 'val/masks/d/z.png')
    listed = dict(data_prefix=dict(img_path=''), ann_file='pool.txt', img_suffix='.jpg')
    (root / 'pool.txt').write_text('more/link\nmore/x\nagain/a\nval/images/d/z.png\nlabeled/images/../images/a\n')
    val = labeled(root, 'val', img_suffix=['.jpg', '.webp'])
    assert pool(root, **listed, exclude_sets=[labeled(root), val]) == ['more/x.jpg']
    assert len(pool(root, **listed)) == 5


def test_masks_beside_images(root):
    write(root, 'both/a.jpg', 'both/a.png', 'both/c.jpg')
    beside = dict(type='FolderDataset', data_root=str(root), ann_file='a.txt',
                  data_prefix=dict(img_path='both', seg_map_path='both'))
    (root / 'a.txt').write_text('a\n')
    names = pool(root, folders=['both'], exclude_sets=[beside])
    assert names == ['both/c.jpg']


def test_by_content(root):
    shutil.copy(root / 'labeled/images/a.jpg', root / 'more/copy.jpg')
    assert 'more/copy.jpg' in pool(root, folders=['more'], exclude_sets=[labeled(root)])
    cfg = dict(folders=['more'], exclude_sets=[labeled(root)], exclude_by='content')
    assert pool(root, **cfg) == ['more/x.jpg', 'more/y.png']
    # The same size, other bytes at the end only: beyond what is read first.
    content = bytearray((root / 'labeled/images/a.jpg').read_bytes() + bytes(1 << 17))
    (root / 'labeled/images/a.jpg').write_bytes(content)
    (root / 'more/copy.jpg').write_bytes(content)
    content[-1] = 1
    (root / 'more/near.jpg').write_bytes(content)
    assert pool(root, **cfg) == ['more/near.jpg', 'more/x.jpg', 'more/y.png']


def test_only_files_of_the_same_size_are_read(root, monkeypatch):
    opened, own = [], builtins.open

    def note(path, *args, **kwargs):
        opened.append(str(path))
        return own(path, *args, **kwargs)

    shutil.copy(root / 'labeled/images/a.jpg', root / 'more/copy.jpg')
    others = Exclusion([labeled(root)], 'content')
    monkeypatch.setattr(builtins, 'open', note)
    assert others.keep([str(root / f'more/{n}') for n in ('copy.jpg', 'y.png')]).tolist() == [False, True]
    assert str(root / 'more/copy.jpg') in opened and str(root / 'more/y.png') not in opened


def test_unreadable_files_are_named(root):
    (root / 'more/broken.jpg').symlink_to(root / 'nowhere.jpg')
    with pytest.raises(ValueError, match='cannot read .*more/broken.jpg: No such file'):
        pool(root, folders=['more'], exclude_sets=[labeled(root)], exclude_by='content')


def test_mistakes(root):
    with pytest.raises(ValueError, match="exclude_by must be 'path' or 'content', got 'hash'"):
        pool(root, exclude_by='hash')
    with pytest.raises(TypeError, match="exclude_sets must hold configs of datasets, got 'val'"):
        pool(root, exclude_sets=['val'])
    (root / 'val/masks/a.png').unlink()
    with pytest.raises(ValueError, match='exclude_sets, .*val/images.*: .*images without mask .1.: a.jpg'):
        pool(root, exclude_sets=labeled(root, 'val'))
    with pytest.raises(ValueError, match='no unlabeled image in folder .*labeled/images: 2 found .*2 of them left out'):
        pool(root, folders=['labeled/images'], exclude_sets=[labeled(root)])


def test_many_candidates_show_a_bar(root, capsys):
    size = (root / 'more/y.png').stat().st_size
    paths = []
    for i in range(1001):
        path = root / f'many/{i}.png'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        paths.append(str(path))
    shutil.copy(root / 'more/y.png', root / 'labeled/images/y.png')
    write(root, 'labeled/masks/y.png')
    kept = Exclusion([labeled(root)], 'content').keep(paths + [str(root / 'more/y.png')])
    assert kept.sum() == 1001 and not kept[-1]
    assert '1002/1002' in capsys.readouterr().err
