import copy
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_semi.datasets import GuidedPairDataset, OnlineGuidedDataset, semi_collate
from mmseg_semi.registry import DATASETS

CLASSES = ('background', 'one', 'two', 'three')
CROP = [dict(type='RandomCrop', crop_size=(16, 16)), dict(type='PackSegInputs')]
LOAD = [dict(type='LoadImageFromFile')]


@pytest.fixture
def make(tmp_path):
    """Labeled a (0 and 1), b (1 and 2), c (2), d (0), unlabeled x and y; class 3 is nowhere."""
    for name, halves in dict(a=(0, 1), b=(1, 2), c=(2, 2), d=(0, 0), x=(0, 0), y=(0, 0)).items():
        mask = np.repeat(np.array(halves, np.uint8), 8)[None].repeat(16, 0)
        for folder in ('u', ) if name in 'xy' else ('l', 'ann'):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture = np.stack([mask] * 3, -1) if folder != 'ann' else mask
            Image.fromarray(picture).save(tmp_path / folder / f'{name}.png')

    def build(index=None, kind='OnlineGuidedDataset', **kwargs):
        labeled = dict(type='BaseSegDataset', data_root=str(tmp_path), img_suffix='.png',
                       metainfo=dict(classes=CLASSES), data_prefix=dict(img_path='l', seg_map_path='ann'),
                       pipeline=[*LOAD, dict(type='LoadAnnotations'), *CROP])
        unlabeled = dict(type='UnlabeledDataset', data_root=str(tmp_path), data_prefix=dict(img_path='u'),
                         pipeline=[*LOAD, *CROP])
        return DATASETS.build(dict(dict(type=kind, primary=unlabeled, labeled=labeled,
                                        index=index or dict(exclude=[0])), **kwargs))

    return build


def shares(dataset, idx=0, number=400):
    np.random.seed(0)
    counts = Counter(dataset[idx]['data_samples'].guide.guide_id for _ in range(number))
    return [counts[i] / number for i in 'abcd']


def test_guides_follow_the_table(make):
    dataset = make()
    assert dataset.table.shape == (2, 4) and dataset.table.dtype == torch.uint8 and dataset.table.is_shared()
    # Nothing is known: a class with a list, then one of its images.
    np.testing.assert_allclose(shares(dataset), [.25, .5, .25, 0], atol=0.08)
    dataset.table[0, 1] = 1
    np.testing.assert_allclose(shares(dataset), [.5, .5, 0, 0], atol=0.08)
    np.testing.assert_allclose(shares(dataset, 1), [.25, .5, .25, 0], atol=0.08)
    dataset.table[0, 3] = dataset.table[0, 0] = 1  # without a list, excluded
    np.testing.assert_allclose(shares(dataset), [.5, .5, 0, 0], atol=0.08)
    dataset.table[0] = torch.tensor([1, 0, 0, 0])
    np.testing.assert_allclose(shares(dataset), [.25, .5, .25, 0], atol=0.08)


def test_the_sample(make):
    sample = make()[1]
    data_sample = sample['data_samples']
    assert data_sample.table_row == 1 and not {'gt_sem_seg', 'pseudo_sem_seg'} & set(data_sample.keys())
    guide = data_sample.guide
    assert (guide.guide_class, guide.has_guide) == (-1, False)
    assert torch.equal(guide.gt_sem_seg.data[0], guide.inputs[0].long())
    assert len(semi_collate([sample])['unlabeled']['inputs']) == 1


@pytest.mark.parametrize('context', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers_see_the_table_change(make, context):
    dataset = make()
    loader = DataLoader(dataset, batch_size=2, num_workers=1, persistent_workers=True, collate_fn=copy.copy,
                        multiprocessing_context=context)
    list(loader)
    for c, expected in ((1, set('ab')), (2, set('bc'))):
        dataset.table.zero_()
        dataset.table[:, c] = 1
        found = {sample['data_samples'].guide.guide_id for _ in range(12) for batch in loader for sample in batch}
        assert found == expected


def test_the_index_may_be_built_here(make):
    dataset = make(dict(min_area=0.6))
    assert dataset.index.lists == (('d', ), (), ('c', ), ()) and dataset.index.exclude == ()
    pairs = make(dict(exclude=[0]), kind='GuidedPairDataset', primary=dict(
        type='BaseSegDataset', data_root=dataset.labeled.data_root, img_suffix='.png', metainfo=dict(classes=CLASSES),
        data_prefix=dict(img_path='l', seg_map_path='ann'), pipeline=[*LOAD, dict(type='LoadAnnotations'), *CROP]))
    assert type(pairs) is GuidedPairDataset and pairs.index.exclude == (0, )
    assert isinstance(dataset, OnlineGuidedDataset)


def test_an_image_in_both_sets(make, tmp_path):
    with pytest.raises(ValueError, match='is labeled, with mask .*take labeled images out of the list of unlabeled'):
        make(primary=dict(type='UnlabeledDataset', data_root=str(tmp_path), data_prefix=dict(img_path='l'),
                          pipeline=[*LOAD, *CROP]))
