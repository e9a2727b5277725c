"""Samples whose random numbers depend on their place alone."""
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from mmseg_semi.datasets import LabeledUnlabeledSampler, ReplaySampler
from mmseg_semi.datasets.replay import Draw, seed_all


class Drawing(Dataset):
    """A sample is its index and what the three generators draw."""

    def __init__(self, size=7):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def loader(sampler, workers=0, dataset=None, seed=5, **options):
    dataset = Drawing() if dataset is None else dataset
    sampler = ReplaySampler(dataset, sampler, seed=seed)
    return DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, drop_last=True, **options)


def batches(data, count):
    return [batch for batch, _ in zip(data, range(count))]  # noqa: B905


ENDLESS = dict(type='InfiniteSampler', shuffle=True)


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_do_not_matter(workers):
    seed_all(1)
    expected = batches(loader(ENDLESS), 5)
    seed_all(2)
    found = batches(loader(ENDLESS, workers), 5)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    draws = torch.cat(expected)[:, 1:]
    assert len(draws.unique()) == draws.numel()  # no number twice, also where an image comes again


def test_workers_may_be_spawned():
    dataset = TensorDataset(torch.arange(9))
    sampler = ReplaySampler(dataset, dict(type='DefaultSampler', shuffle=False), seed=0)
    data = DataLoader(dataset, 3, sampler=sampler, num_workers=1, multiprocessing_context='spawn')
    assert torch.cat([batch for batch, in data]).tolist() == list(range(9))
    assert pickle.loads(pickle.dumps(Draw(3, (0, 1, 2)))).seed == (0, 1, 2)


def test_the_stream_is_that_of_the_other_sampler():
    dataset = Drawing()
    indices = [int(i) for i, _ in zip(InfiniteSampler(dataset, seed=5), range(20))]  # noqa: B905
    assert torch.cat(batches(loader(ENDLESS), 5))[:, 0].tolist() == indices
    own = dict(ENDLESS, seed=9)
    assert torch.cat(batches(loader(own), 5))[:, 0].tolist() != indices
    both = ConcatDataset([Drawing(3), Drawing(5)])
    two = dict(type='LabeledUnlabeledSampler', counts=(1, 3))
    plain = [i for i, _ in zip(LabeledUnlabeledSampler(both, (1, 3), seed=5), range(20))]  # noqa: B905
    draws = [draw for draw, _ in zip(ReplaySampler(both, two, seed=5), range(20))]  # noqa: B905
    assert draws == plain and [draw.seed for draw in draws] == [(5, 0, i) for i in range(20)]


def test_seeds_differ(monkeypatch):
    one = torch.cat(batches(loader(ENDLESS), 2))
    assert not torch.equal(torch.cat(batches(loader(ENDLESS, seed=6), 2))[:, 1:], one[:, 1:])
    monkeypatch.setattr('mmseg_semi.datasets.replay.get_dist_info', lambda: (1, 2))
    other = torch.cat(batches(loader(ENDLESS), 2))
    assert not np.isin(other[:, 1:], one[:, 1:]).any()


def test_resume_goes_on():
    expected = batches(loader(dict(type='LabeledUnlabeledSampler', counts=(1, 3)),
                              dataset=ConcatDataset([Drawing(3), Drawing(5)])), 5)
    data = loader(dict(type='LabeledUnlabeledSampler', counts=(1, 3)), 1, ConcatDataset([Drawing(3), Drawing(5)]))
    data.sampler.skip(8)  # indices
    torch.testing.assert_close(batches(data, 3), expected[2:], rtol=0, atol=0)


@pytest.mark.parametrize('other', [DefaultSampler, InfiniteSampler, LabeledUnlabeledSampler])
def test_only_samplers_that_can_skip_are_asked_to(other):
    options = dict(counts=(1, 1)) if other is LabeledUnlabeledSampler else {}
    sampler = ReplaySampler(ConcatDataset([Drawing(3), Drawing(5)]), dict(type=other.__name__, **options), seed=0)
    assert hasattr(sampler, 'skip') == hasattr(other, 'skip')


def test_another_pass_of_a_finite_sampler_draws_anew():
    sampler = ReplaySampler(Drawing(3), dict(type='DefaultSampler', shuffle=False), seed=0)
    assert len(sampler) == 3
    first = list(sampler)
    sampler.set_epoch(1)
    assert [draw.seed[2] for draw in (*first, *sampler)] == [0, 1, 2, 3, 4, 5]


def test_a_draw_is_its_index():
    draw = Draw(3, (0, 1, 2))
    assert draw == 3 and [10, 20, 30, 40][draw] == 40


def test_a_seed_is_drawn_where_none_is_given():
    assert ReplaySampler(Drawing(), ENDLESS).seed >= 0


def test_reading_by_index_stays_as_it_is():
    data = loader(ENDLESS)
    seed_all(3)
    one = data.dataset[2]
    seed_all(3)
    assert torch.equal(Drawing()[2], one)
