"""Scores, lists and their records: worked examples, ties, interrupted and damaged files, mistakes."""
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmseg_semi.datasets import UnlabeledDataset
from mmseg_semi.engine.runner import CheckpointAgreement, SelectStage, StageScorer, map_agreement, select_stage
from mmseg_semi.engine.runner.image_records import image_files, read_records, share_records
from mmseg_semi.engine.runner.select_stage import split_by_score
from mmseg_semi.engine.runner.stage import PlanError
from mmseg_semi.registry import STAGE_SCORERS

P3 = np.array([[0, 0], [1, 1]], np.uint8)


@pytest.fixture
def images(tmp_path):
    """Folder of five images whose first pixel is 10, 20, ..."""
    for i, name in enumerate(('u/a', 'u/b', 'u/c', 'v/a', 'v/b')):
        path = tmp_path / 'images' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((4, 6 + i, 3), 10 * (i + 1), np.uint8))
    return tmp_path / 'images'


@pytest.fixture
def brightness():
    """A scorer that counts its calls: the image's first pixel; images of the same ten are equal."""

    class Brightness(StageScorer):
        artifacts, calls = ('mean', ), []

        def __init__(self, step=10, high=True, stop_at=None):
            self.step, self.higher_is_better, self.stop_at = step, high, stop_at

        def settings(self):
            return dict(step=self.step, high=self.higher_is_better)

        def prepare(self, folder, dataset):
            (folder / 'mean.txt').write_text(str(len(dataset)))
            return dict(mean=folder / 'mean.txt')

        def score(self, sample):
            value = int(sample['inputs'][0, 0, 0])
            if value == self.stop_at:
                raise KeyboardInterrupt
            self.calls.append(value)
            return math.nan if self.step == 0 else value // self.step

    STAGE_SCORERS.register_module(name='Brightness', module=Brightness)
    yield Brightness
    STAGE_SCORERS.module_dict.pop('Brightness')


def make(folder, images, ratio=0.5, **scorer):
    folder.mkdir(exist_ok=True)
    return SelectStage(dict(type='Brightness', **scorer), dict(data_prefix=dict(img_path=str(images))), ratio,
                       folder=folder, here=folder, launcher='none', env_cfg={}, plan_cfg={})


def lists(outputs):
    return [outputs[name].read_text().split() for name in ('reliable', 'unreliable')]


# ---- the score --------------------------------------------------------------------------------------------------


def test_worked_examples():
    """Section 10 of the specification, 1 and 2."""
    first = map_agreement(np.array([[0, 1], [1, 1]]), P3, 3)
    assert first == pytest.approx(0.583333, abs=1e-6) and map_agreement(P3, P3, 3) == 1
    assert (first + 1) / 2 == pytest.approx(0.791667, abs=1e-6)
    assert map_agreement(np.array([[0, 2], [1, 1]]), P3, 3) == pytest.approx(0.5)
    assert map_agreement(P3, np.array([[0, 2], [1, 1]]), 3) == pytest.approx(0.5)


def test_maps_without_a_counted_pixel():
    assert map_agreement(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), 3) == 0
    assert map_agreement(np.full((2, 2), 255, np.uint8), P3, 3) == 0
    assert map_agreement(np.array([[0, 255], [1, 1]], np.uint8), P3, 3) == 1  # the ignored pixel is in neither map


def test_checkpoint_agreement_means_over_the_earlier_ones(monkeypatch):
    maps = iter([np.array([[0, 1], [1, 1]]), P3, P3])
    monkeypatch.setattr('mmseg_semi.engine.runner.checkpoint_agreement.predict_label', lambda model, sample: next(maps))
    scorer = CheckpointAgreement('cfg', ['a', 'b', 'c'])
    scorer.models = [type('Model', (), dict(num_classes=3))] * 3
    assert scorer.score({}) == pytest.approx(0.791667, abs=1e-6)


@pytest.mark.parametrize('checkpoints', [[], ['a'], ['a', 'b', 'a']])
def test_two_different_checkpoints_at_least(checkpoints):
    with pytest.raises(ValueError, match='must be at least two different ones'):
        CheckpointAgreement('cfg', checkpoints)


# ---- the lists --------------------------------------------------------------------------------------------------


def test_split():
    scores = [('b', 1.), ('a', 1.), ('d', 3.), ('e', 0.), ('c', 1.)]
    assert split_by_score(scores, 0.5, True) == (['d', 'a'], ['b', 'c', 'e'])
    assert split_by_score(scores, 0.5, False) == (['e', 'a'], ['b', 'c', 'd'])
    assert split_by_score(scores, 1, True)[1] == []
    assert split_by_score([('a', 1.)], 0.5, True) == ([], ['a'])
    hundred = [(f'{i:03}', 0.) for i in range(100)]
    assert len(split_by_score(hundred, 0.29, True)[0]) == 29  # 0.29 * 100 is below 29 in floating point
    assert split_by_score([('a', math.inf), ('b', 2.)], 0.5, False) == (['b'], ['a'])


@pytest.mark.parametrize('high, expected', [(True, ['v/b.png', 'v/a.png']), (False, ['u/a.png', 'u/b.png'])])
def test_lists_are_datasets(images, tmp_path, brightness, high, expected):
    outputs = make(tmp_path / 'select', images, high=high).run()
    reliable, unreliable = lists(outputs)
    assert reliable == expected and len(unreliable) == 3 and not set(reliable) & set(unreliable)
    dataset = UnlabeledDataset(ann_file=str(outputs['reliable']), data_prefix=dict(img_path=str(images)), pipeline=[])
    assert [Path(dataset.get_data_info(i)['img_path']) for i in range(2)] == [images / name for name in expected]
    assert [json.loads(line) for line in outputs['scores'].read_text().splitlines()] == [
        dict(id=key, score=float(i + 1)) for i, key in enumerate(('u/a', 'u/b', 'u/c', 'v/a', 'v/b'))]
    assert set(outputs) == {'scores', 'reliable', 'unreliable', 'mean'} == set(make(tmp_path, images).artifacts)


def test_ties_are_broken_by_id(images, tmp_path, brightness):
    assert lists(make(tmp_path / 'one', images, step=100).run())[0] == ['u/a.png', 'u/b.png']
    assert lists(make(tmp_path / 'two', images, step=100, high=False).run())[0] == ['u/a.png', 'u/b.png']


def test_images_are_not_held_in_memory(images, tmp_path, brightness, held):
    """However many there are: the one that is scored, and the next."""
    counts = held(select_stage)
    make(tmp_path / 'select', images).run()
    assert len(counts) == 5 and max(counts) <= 2


def test_an_interrupted_stage_scores_the_rest(images, tmp_path, brightness):
    whole = make(tmp_path / 'whole', images).run()
    folder = tmp_path / 'select'
    with pytest.raises(KeyboardInterrupt):
        make(folder, images, stop_at=30).run()
    assert not (folder / 'scores.jsonl').exists() and not (folder / 'reliable.txt').exists()
    with open(folder / 'scores.rank0.jsonl', 'a') as file:
        file.write('{"id": "u/c", "sco')  # killed in the middle of a line
    (folder / 'scores.rank1.jsonl').write_text('{"id": "v/b", "score": 5.0}\n')  # there were two ranks then
    brightness.calls.clear()
    outputs = make(folder, images).run()
    assert brightness.calls == [30, 40]
    for name in ('scores', 'reliable', 'unreliable'):
        assert outputs[name].read_bytes() == whole[name].read_bytes()
    assert {path.name for path in folder.iterdir()} == {'scores.jsonl', 'reliable.txt', 'unreliable.txt', 'mean.txt'}
    brightness.calls.clear()
    make(folder, images).run()
    assert not brightness.calls


def test_scores_do_not_depend_on_the_training_before(images, tmp_path, brightness, monkeypatch):
    seen = []
    monkeypatch.setattr(brightness, 'prepare', lambda *_: seen.append(torch.backends.cudnn.benchmark) or {})
    monkeypatch.setattr(brightness, 'score', lambda *_: seen.append(torch.backends.cudnn.benchmark) or 1.)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    make(tmp_path / 'select', images).run()
    assert seen == [False] * 6 and torch.backends.cudnn.benchmark


def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path):
    (tmp_path / 'x.rank0.jsonl').write_text('{"id": "a", "n": 1}\n{"id": "b", ')

    def stop(indices):
        for index in indices:
            if index == 2:
                raise KeyboardInterrupt
            yield dict(n=index)

    with pytest.raises(KeyboardInterrupt):
        share_records(tmp_path, 'x', ['a', 'b', 'c'], bool, stop)
    assert {record['id'] for record in read_records(tmp_path / 'x.rank0.jsonl')} == {'a', 'b'}
    share_records(tmp_path, 'x', ['a', 'b', 'c'], bool, lambda indices: (dict(n=index) for index in indices))
    assert read_records(tmp_path / 'x.jsonl') == [dict(id='a', n=1), dict(id='b', n=1), dict(id='c', n=2)]


def test_records_of_images_that_are_gone_are_dropped(tmp_path):
    share_records(tmp_path, 'x', ['a', 'b'], bool, lambda indices: (dict(n=index) for index in indices))
    share_records(tmp_path, 'x', ['b', 'c'], bool, lambda indices: (dict(n=index + 5) for index in indices))
    assert read_records(tmp_path / 'x.jsonl') == [dict(id='b', n=1), dict(id='c', n=6)]


def test_records_that_rank_0_does_not_see_are_told(tmp_path, monkeypatch):
    """The other rank writes to a disk of its own: no short list, and nothing is lost."""
    home = 'mmseg_semi.engine.runner.image_records'
    monkeypatch.setattr(f'{home}.get_dist_info', lambda: (0, 2))
    with pytest.raises(PlanError, match=r'1 of 3 images have no record in x\.rank\*\.jsonl, such as b; exp'):
        share_records(tmp_path, 'x', ['a', 'b', 'c'], bool, lambda indices: (dict(n=index) for index in indices))
    assert not (tmp_path / 'x.jsonl').exists()
    assert read_records(tmp_path / 'x.rank0.jsonl') == [dict(id='a', n=0), dict(id='c', n=2)]


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('ratio', [0, -0.5, 1.5])
def test_ratio(images, tmp_path, brightness, ratio):
    with pytest.raises(ValueError, match=r'ratio must be in \(0, 1\], found'):
        make(tmp_path, images, ratio)


def test_scorer_that_is_not_there(images, tmp_path):
    with pytest.raises(ValueError, match=r"no scorer 'Brightness'; there are \[.*'CheckpointAgreement'"):
        make(tmp_path, images)


def test_a_score_must_be_a_number(images, tmp_path, brightness):
    with pytest.raises(ValueError, match='gave image u/a the score NaN'):
        make(tmp_path / 'select', images, step=0).run()


def test_two_images_of_one_name(images):
    cv2.imwrite(str(images / 'u' / 'a.jpg'), np.zeros((4, 4, 3), np.uint8))
    # Of a folder one of the two is taken; a list is taken as it is.
    (images / 'list.txt').write_text('u/a.jpg\nu/a.png\n')
    with pytest.raises(ValueError, match=r'u/a\.jpg and u/a\.png would share the mask u/a\.png'):
        image_files(UnlabeledDataset(
            ann_file=str(images / 'list.txt'), data_prefix=dict(img_path=str(images)), pipeline=[]))
