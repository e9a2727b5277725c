"""Index streams against a slow, obvious reference."""
import itertools
import logging
import tracemalloc

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mmseg_semi.datasets.sampler as module
from mmseg_semi.datasets import LabeledUnlabeledSampler


class Numbers(BaseDataset):
    """The integers from ``start`` on."""

    def __init__(self, start, size):
        self.start, self.size = start, size
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [dict(value=self.start + i) for i in range(self.size)]

    def prepare_data(self, idx):
        return self.get_data_info(idx)['value']


def union(n_labeled, n_unlabeled):
    return ConcatDataset([Numbers(0, n_labeled), Numbers(n_labeled, n_unlabeled)])


def set_rank(monkeypatch, rank, world):
    monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world))


def shuffled(size, seed, number, source):
    state = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, number, source])))
    return state.permutation(size).tolist()


def reference(sizes, counts, seed, rank, world, steps, infinite):
    """Writes both global streams down in full, slices them by rank and deals them out."""
    pass_length = sizes[1] if infinite else sizes[1] // (counts[1] * world) * counts[1] * world
    labeled, unlabeled = [], []
    for number in itertools.count():
        if min(len(labeled), len(unlabeled)) >= steps * world * max(counts):
            break
        labeled += shuffled(sizes[0], seed, number, 0)
        unlabeled += [i + sizes[0] for i in shuffled(sizes[1], seed, number, 1)[:pass_length]]
    labeled, unlabeled = iter(labeled[rank::world]), iter(unlabeled[rank::world])
    out = []
    for _ in range(steps):
        out += [next(labeled) for _ in range(counts[0])] + [next(unlabeled) for _ in range(counts[1])]
    return out


def take(sampler, number):
    return list(itertools.islice(sampler, number))


SETTINGS = [(0, 1, (7, 20), (2, 3)), (0, 2, (7, 20), (2, 3)), (1, 2, (7, 20), (2, 3)), (1, 2, (30, 11), (1, 4)),
            (3, 4, (3, 50), (1, 1))]


@pytest.mark.parametrize('rank, world, sizes, counts', SETTINGS)
def test_infinite_stream(monkeypatch, rank, world, sizes, counts):
    set_rank(monkeypatch, rank, world)
    sampler = LabeledUnlabeledSampler(union(*sizes), counts, seed=3)
    expected = reference(sizes, counts, 3, rank, world, 40, True)
    assert take(sampler, len(expected)) == expected
    assert len(sampler) == sizes[1] // (counts[1] * world) * sum(counts)
    sampler.set_epoch(5)
    assert take(sampler, len(expected)) == expected


@pytest.mark.parametrize('rank, world, sizes, counts', SETTINGS)
def test_finite_epochs(monkeypatch, rank, world, sizes, counts):
    set_rank(monkeypatch, rank, world)
    sampler = LabeledUnlabeledSampler(union(*sizes), counts, seed=3, infinite=False)
    steps = sizes[1] // (counts[1] * world)
    expected = reference(sizes, counts, 3, rank, world, 6 * steps, False)
    epochs = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler) == steps * sum(counts)
        drawn = [i for i in epochs[-1] if i >= sizes[0]]
        assert len(set(drawn)) == len(drawn) == steps * counts[1]
    assert sum(epochs, []) == expected
    sampler.set_epoch(4)
    assert list(sampler) == epochs[4]


@pytest.mark.parametrize('infinite', [True, False])
@pytest.mark.parametrize('rank, world', [(0, 1), (1, 2)])
def test_skip_is_absolute(monkeypatch, rank, world, infinite):
    set_rank(monkeypatch, rank, world)
    sampler = LabeledUnlabeledSampler(union(7, 20), (2, 3), seed=9, infinite=infinite)
    expected = reference((7, 20), (2, 3), 9, rank, world, 40, infinite)
    for position in (0, 1, 2, 4, 5, 14, 15, 31, 99, 100):
        sampler.skip(position)
        end = len(expected) if infinite else (position // len(sampler) + 1) * len(sampler)
        assert take(sampler, end - position) == expected[position:end]
        if not infinite:
            assert len(list(sampler)) == end - position
    with pytest.raises(ValueError, match='-1'):
        sampler.skip(-1)


def test_skip_is_cheap(monkeypatch):
    sampler = LabeledUnlabeledSampler(union(7, 20), (2, 3), seed=9)
    made = []
    permutation = sampler._permutation
    monkeypatch.setattr(sampler, '_permutation', lambda *a: made.append(a) or permutation(*a))
    sampler.skip(10**12 * 5)
    assert len(take(sampler, 5)) == 5
    assert len(made) <= 3


def test_ranks_share_each_pass(monkeypatch):
    seen = []
    for rank in range(2):
        set_rank(monkeypatch, rank, 2)
        indices = take(LabeledUnlabeledSampler(union(8, 12), (1, 1), seed=0), 12)
        seen += [i for i in indices if i >= 8]
    assert sorted(seen) == list(range(8, 20))


def test_every_labeled_image_is_used_in_finite_mode():
    sampler = LabeledUnlabeledSampler(union(15, 9), (1, 1), seed=0, infinite=False)
    seen = set()
    for epoch in range(2):
        sampler.set_epoch(epoch)
        seen |= {i for i in sampler if i < 15}
    assert seen == set(range(15))


def test_sources_of_equal_size_are_not_paired():
    indices = take(LabeledUnlabeledSampler(union(50, 50), (1, 1), seed=0), 100)
    labeled, unlabeled = indices[::2], [i - 50 for i in indices[1::2]]
    assert sorted(labeled) == sorted(unlabeled) == list(range(50))
    assert sum(a == b for a, b in zip(labeled, unlabeled, strict=True)) < 10


def test_seeds_and_passes_differ():
    first = take(LabeledUnlabeledSampler(union(30, 30), (1, 1), seed=0), 120)
    assert first != take(LabeledUnlabeledSampler(union(30, 30), (1, 1), seed=1), 120)
    assert first[:60] != first[60:]


def test_seed_is_drawn_and_public():
    sampler = LabeledUnlabeledSampler(union(4, 8), [1, 2])
    assert type(sampler.seed) is int
    assert (sampler.counts, sampler.infinite) == ((1, 2), True)
    assert take(sampler, 30) == take(LabeledUnlabeledSampler(union(4, 8), (1, 2), seed=sampler.seed), 30)


@pytest.mark.parametrize('counts', [(0, 2), (2, -1), (1.0, 2), (1, ), (1, 2, 3), 4, (True, 1), '12'])
def test_bad_counts(counts):
    with pytest.raises(ValueError, match='counts must be two positive integers') as error:
        LabeledUnlabeledSampler(union(4, 8), counts)
    assert repr(counts) in str(error.value)


@pytest.mark.parametrize('sizes', [(0, 5), (5, 0)])
def test_empty_source(sizes):
    with pytest.raises(ValueError, match=f'{sizes[0]} labeled and {sizes[1]} unlabeled'):
        LabeledUnlabeledSampler(union(*sizes), (1, 1))


def test_sources_as_small_as_a_step_and_read_late():
    for infinite in (True, False):
        dataset = ConcatDataset([Numbers(0, 1), Numbers(1, 1)], lazy_init=True)
        sampler = LabeledUnlabeledSampler(dataset, (1, 1), seed=0, infinite=infinite)
        assert list(itertools.islice(sampler, 2)) == [0, 1]


def test_wrong_datasets():
    with pytest.raises(TypeError, match='Numbers'):
        LabeledUnlabeledSampler(Numbers(0, 4), (1, 1))
    with pytest.raises(ValueError, match='got 3'):
        LabeledUnlabeledSampler(ConcatDataset([Numbers(i, 4) for i in range(3)]), (1, 1))


def test_finite_epoch_without_a_step(monkeypatch):
    set_rank(monkeypatch, 0, 4)
    with pytest.raises(ValueError, match='7 unlabeled images do not fill one step of 2 x 4 GPUs'):
        LabeledUnlabeledSampler(union(9, 7), (2, 2), infinite=False)


def test_small_labeled_set_repeats_and_warns(monkeypatch):
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    sampler = LabeledUnlabeledSampler(union(3, 8), (4, 1), seed=0)
    take(sampler, 50)
    LabeledUnlabeledSampler(union(4, 8), (4, 1), seed=0)
    logger.removeHandler(handler)
    assert records == ['3 labeled images for steps of 4 x 1 GPUs: images repeat inside a step']
    first = take(sampler, 4)
    assert set(first) == {0, 1, 2}


@pytest.mark.parametrize('workers', [0, 2])
def test_through_the_runner(workers):
    init_default_scope('mmseg')
    cfg = dict(dataset=union(7, 20), batch_size=5, num_workers=workers, collate_fn=dict(type='pseudo_collate'),
               sampler=dict(type='LabeledUnlabeledSampler', counts=(2, 3)))
    loader = Runner.build_dataloader(cfg, seed=11)
    loader.sampler.skip(25)
    batches = list(itertools.islice(loader, 4))
    expected = reference((7, 20), (2, 3), 11, 0, 1, 9, True)[25:]
    assert [int(item) for batch in batches for item in batch] == expected
    assert len(loader) == 6


def test_one_permutation_at_a_time():
    """A pool of a million images must not cost two of them where one pass ends and the next begins."""

    class Union:
        cumulative_sizes = [10, 10 + 10**5]

    sampler = LabeledUnlabeledSampler(Union(), (1, 4), seed=0)
    sampler.skip(len(sampler) - 50)
    tracemalloc.start()
    indices = take(sampler, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(indices)) > 50
    assert 8 * 10**5 <= peak < 1.2 * 8 * 10**5
