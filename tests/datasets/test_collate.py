import torch
from mmengine.registry import FUNCTIONS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_semi.datasets import semi_collate


def sample(value, labeled):
    data_sample = SegDataSample(metainfo=dict(value=value))
    if labeled:
        data_sample.gt_sem_seg = PixelData(data=torch.full((1, 2, 3), value))
    return dict(inputs=torch.full((3, 2, 3), value, dtype=torch.uint8), data_samples=data_sample)


def values(group):
    assert [int(x[0, 0, 0]) for x in group['inputs']] == [d.value for d in group['data_samples']]
    return [d.value for d in group['data_samples']]


def test_groups_keep_their_order():
    batch = semi_collate([sample(3, False), sample(1, True), sample(2, False), sample(0, True)])
    assert list(batch) == ['labeled', 'unlabeled']
    assert values(batch['labeled']) == [1, 0]
    assert values(batch['unlabeled']) == [3, 2]
    assert all('gt_sem_seg' in d for d in batch['labeled']['data_samples'])
    assert not any('gt_sem_seg' in d for d in batch['unlabeled']['data_samples'])


def test_one_group_may_be_empty():
    batch = semi_collate([sample(1, True)])
    assert batch['unlabeled'] == dict(inputs=[], data_samples=[])


def test_registered():
    assert FUNCTIONS.get('semi_collate') is semi_collate
