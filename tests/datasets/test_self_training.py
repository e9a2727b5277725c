"""Labeled images repeated to match the pseudo-labeled ones."""
import cv2
import numpy as np
import pytest

from mmseg_semi.datasets import lists_nothing
from mmseg_semi.registry import DATASETS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture
def make(tmp_path):
    """Function that makes the set of some labeled and some pseudo-labeled images; their masks are all 1, all 2."""

    def of(labeled=3, pseudo=8, shared=0, ann_file=''):
        for i in range(labeled):
            for folder, value in (('img', i), ('ann', 1)):
                (tmp_path / folder).mkdir(exist_ok=True)
                cv2.imwrite(str(tmp_path / folder / f'l{i}.png'), np.full((5, 5), value, np.uint8))
        names = [f'p{i}' for i in range(pseudo)] + [f'l{i}' for i in range(shared)]
        for name in names:
            for folder, value in (('img', 9), ('masks', 2)):
                (tmp_path / folder).mkdir(exist_ok=True)
                cv2.imwrite(str(tmp_path / folder / f'{name}.png'), np.full((5, 5), value, np.uint8))
        (tmp_path / 'labeled.txt').write_text(''.join(f'l{i}\n' for i in range(labeled)))
        (tmp_path / 'unlabeled.txt').write_text(''.join(f'{name}.png\n' for name in names))
        root = dict(data_root=str(tmp_path), pipeline=PIPELINE)
        return DATASETS.build(dict(
            type='SelfTrainingDataset',
            labeled=dict(type='BaseSegDataset', ann_file='labeled.txt', img_suffix='.png',
                         metainfo=dict(classes=('a', 'b', 'c'), palette=[[0] * 3, [1] * 3, [2] * 3]),
                         data_prefix=dict(img_path='img', seg_map_path='ann'), **root),
            pseudo=dict(type='PseudoLabeledDataset', ann_file=ann_file or 'unlabeled.txt',
                        mask_dirs=[str(tmp_path / 'masks')], data_prefix=dict(img_path='img'), **root)))

    return of


@pytest.mark.parametrize('labeled, pseudo, total', [(3, 8, 17), (3, 9, 18), (4, 2, 6), (1, 1, 2)])
def test_repeats(make, labeled, pseudo, total):
    """The first is worked example 5 of the ST++ specification."""
    dataset = make(labeled, pseudo)
    assert len(dataset) == total
    seen = [int(dataset[i]['data_samples'].gt_sem_seg.data.max()) for i in range(total)]
    assert seen == [1] * (total - pseudo) + [2] * pseudo
    assert dataset.metainfo['classes'] == ('a', 'b', 'c')


def test_an_image_in_both_lists_is_refused(make):
    with pytest.raises(ValueError, match=r'2 images are both labeled and pseudo-labeled, such as .*l0\.png.*l1\.png'):
        make(shared=2)


def test_an_empty_list_leaves_the_labeled_images(make, tmp_path):
    (tmp_path / 'reliable.txt').write_text('\n')
    assert len(make(ann_file='reliable.txt')) == 3


def test_lists_nothing(tmp_path):
    (tmp_path / 'empty.txt').write_text('\n\n')
    (tmp_path / 'one.txt').write_text('a.png\n')
    root = str(tmp_path)
    assert lists_nothing(dict(data_root=root, ann_file='empty.txt'))
    assert lists_nothing(dict(ann_file=str(tmp_path / 'empty.txt'), data_root='elsewhere'))
    assert not lists_nothing(dict(data_root=root, ann_file='one.txt'))
    # A list that is not there is a mistake, and no list means the whole folder.
    assert not lists_nothing(dict(data_root=root, ann_file='none.txt')) and not lists_nothing(dict(data_root=root))
