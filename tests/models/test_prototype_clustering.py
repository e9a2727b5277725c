import pickle
import threading

import pytest
import torch
from joblib import cpu_count
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from mmseg_semi.models import prototype_clustering
from mmseg_semi.models.prototype_clustering import PixelReservoir, cluster, collect, sample_pixels


def test_two_clear_clusters_are_found_and_keep_their_raw_norm():
    generator = torch.Generator().manual_seed(0)
    reservoir = PixelReservoir(1, 1000, generator)
    first = torch.tensor([10., 0.]) + torch.randn(50, 2, generator=generator) * 0.1
    second = torch.tensor([0., 3.]) + torch.randn(50, 2, generator=generator) * 0.1
    reservoir.add(0, torch.cat([first, second]))
    bank, valid = cluster(reservoir, 2, 2, seed=0)
    assert valid.tolist() == [True]
    got = sorted(bank[0].tolist())
    torch.testing.assert_close(torch.tensor(got), torch.stack([second.mean(0), first.mean(0)]))


@pytest.mark.parametrize('samples,expected', [
    ([], None), ([[1., 2.]], [[1., 2.]] * 3), ([[1., 2.], [3., 4.]], [[1., 2.], [3., 4.], [3., 4.]]),
    ([[1., 2.], [1., 2.], [3., 4.]], [[1., 2.], [3., 4.], [3., 4.]])])
def test_fewer_samples_than_prototypes(samples, expected, monkeypatch):
    logged = []
    monkeypatch.setattr(prototype_clustering, 'print_log', lambda text, *_, **__: logged.append(text))
    reservoir = PixelReservoir(1, 10, torch.Generator())
    reservoir.add(0, torch.tensor(samples).reshape(-1, 2))
    bank, valid = cluster(reservoir, 3, 2, seed=0)
    assert len(logged) == bool(samples) and all('class 0 has' in text for text in logged)
    assert valid.item() == bool(samples)
    assert bank[0].tolist() == (expected or [[0., 0.]] * 3)


@pytest.mark.parametrize('directions', [[[1., 0.]], [[1., 0.], [0., 1.]]])
def test_fewer_directions_than_prototypes_leave_no_empty_row(directions):
    reservoir = PixelReservoir(1, 10, torch.Generator())
    reservoir.add(0, (torch.tensor(directions)[:, None] * torch.tensor([1., 2., 3., 4., 5.])[:, None]).flatten(0, 1))
    bank, _ = cluster(reservoir, 4, 2, seed=0)
    means = [[3 * x for x in direction] for direction in directions]
    assert all(row in means for row in bank[0].tolist()) and all(mean in bank[0].tolist() for mean in means)


def test_clusters_are_of_directions_by_the_best_of_ten_starts():
    features = torch.randn(300, 3, generator=torch.Generator().manual_seed(3)) * torch.logspace(-6, 2, 300)[:, None]
    reservoir = PixelReservoir(1, 300, torch.Generator())
    reservoir.add(0, features)
    bank, valid = cluster(reservoir, 8, 3, seed=5)
    assert valid.dtype == torch.bool
    unit = (features.double() / features.double().norm(dim=1, keepdim=True)).float()
    with threadpool_limits(1):
        assigned = KMeans(8, n_init=10, max_iter=100, random_state=5).fit(unit.numpy()).labels_
    torch.testing.assert_close(bank[0], torch.stack([features[torch.from_numpy(assigned == k)].mean(0)
                                                     for k in range(8)]))


def test_all_draws_are_the_generators():
    label_map = torch.zeros(20, 20, dtype=torch.long)

    def run():
        generator = torch.Generator().manual_seed(0)
        first, second = (collect([(None, label_map)] * 3, lambda _: torch.arange(400.).reshape(1, 1, 20, 20), 1, True,
                                 generator, per_image=50, capacity=100) for _ in range(2))
        first.merge(second)
        return torch.stack(first.features[0])

    state = torch.get_rng_state()
    assert torch.equal(run(), run()) and torch.equal(torch.get_rng_state(), state)


def test_reservoir_is_a_uniform_sample():
    hits = torch.zeros(20)
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        reservoir = PixelReservoir(1, 5, generator)
        reservoir.add(0, torch.arange(20.)[:, None])
        hits[torch.stack(reservoir.features[0]).long().squeeze(1)] += 1
    assert len(reservoir.features[0]) == 5 and reservoir.seen == [20]
    assert hits.min() > 85 and hits.max() < 165  # 125 expected


def test_merged_reservoirs_keep_shares_of_what_each_saw():
    generator = torch.Generator().manual_seed(0)
    first, second = (PixelReservoir(1, 100, generator) for _ in range(2))
    first.add(0, torch.zeros(300, 1))
    second.add(0, torch.ones(100, 1))
    first.merge(second)
    assert len(first.features[0]) == 100 and torch.stack(first.features[0]).sum() == 25 and first.seen == [400]


def test_pixels_of_a_class_lie_on_the_class_and_ignored_ones_are_skipped():
    label_map = torch.tensor([[0, 1, 255], [1, 1, 2], [3, 3, 3]])
    got = {c: set(zip(r.tolist(), k.tolist(), strict=True))
           for c, r, k in sample_pixels(label_map, 3, 2, torch.Generator().manual_seed(0))}
    assert set(got) == {0, 1, 2} and got[0] == {(0, 0)} and got[2] == {(1, 2)}
    assert len(got[1]) == 2 and got[1] < {(0, 1), (1, 0), (1, 1)}


def test_an_ignored_class_gets_no_pixels():
    label_map = torch.tensor([[0, 0], [1, 1]])
    reservoir = collect([(None, label_map)], lambda _: torch.ones(1, 1, 2, 2), 2, True, torch.Generator(),
                        ignore_index=0)
    assert [len(features) for features in reservoir.features.values()] == [0, 2]


def test_features_are_read_at_the_pixels_relative_position_and_bad_ones_left_out():
    label_map = torch.tensor([[0, 0], [1, 1]])
    feature = torch.tensor([[[[1., 2., 3.], [4., 5., 6.], [float('nan'), 8., 9.]]]])  # [1, 1, 3, 3]
    reservoir = collect([(None, label_map)], lambda _: feature, 2, True, torch.Generator().manual_seed(0))
    assert sorted(f.item() for f in reservoir.features[0]) == [1., 3.]  # corners to corners
    assert [f.item() for f in reservoir.features[1]] == [9.]


def test_a_reservoir_travels_between_ranks_without_baggage():
    reservoir = PixelReservoir(2, 1000, torch.Generator())
    reservoir.add(0, torch.randn(64, 128))
    sent = pickle.dumps(reservoir)
    assert len(sent) - len(pickle.dumps(PixelReservoir(2, 1000, torch.Generator()))) < 1.02 * 64 * 128 * 4
    arrived = pickle.loads(sent)
    assert arrived.generator is None  # torch before 2.4 cannot pickle one
    assert torch.equal(torch.stack(arrived.features[0]), torch.stack(reservoir.features[0]))
    assert arrived.features[1] == [] and arrived.seen == [64, 0]
    reservoir.merge(arrived)
    assert len(reservoir.features[0]) == 128


def test_classes_are_clustered_side_by_side_each_on_one_thread(monkeypatch):
    """torchrun leaves one thread to a rank; threads that share a class would add its pixels in any order."""
    together, fit, threads = threading.Barrier(min(cpu_count(), 2)), KMeans.fit, set()

    def spy(self, *args):
        together.wait(timeout=60)
        threads.update(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'openmp')
        return fit(self, *args)

    monkeypatch.setattr(KMeans, 'fit', spy)
    reservoir = PixelReservoir(2, 10, torch.Generator())
    for label in (0, 1):
        reservoir.add(label, (label + 1) * torch.eye(5))
    before = threadpool_info()
    bank, _ = cluster(reservoir, 2, 5, seed=0)
    assert threads == {1} and threadpool_info() == before
    assert torch.equal(bank[1], 2 * bank[0])
