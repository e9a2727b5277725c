import copy
import logging
import os
import os.path as osp
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from mmseg_semi.datasets import ClassIndex, GuidedPairDataset, SemiDataset, draw_guide, semi_collate

SIZE = (16, 16)
CLASSES = ('background', 'one', 'two', 'three')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=SIZE),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
TOY = ClassIndex(['a', 'b', 'c', 'd'], [{}, dict(a=.5, b=.5), dict(b=.5, c=.5), {}], CLASSES)
RNGS = [np.random.default_rng, np.random.RandomState, lambda seed: np.random.seed(seed) or np.random]


def shares(number, *args, rng=None, **kwargs):
    rng = rng or np.random.default_rng(0)
    counts = Counter(draw_guide(*args[:2], rng, *args[2:], **kwargs) for _ in range(number))
    return [counts[i] / number for i in 'abcd']


@pytest.mark.parametrize('make_rng', RNGS)
@pytest.mark.parametrize('sampling, exclude_id, expected', [
    ('multiset', None, (.25, .5, .25, 0)),
    ('multiset', 'b', (.5, 0, .5, 0)),
    ('multiset', 'a', (0, 2 / 3, 1 / 3, 0)),
    ('unique', None, (1 / 3, 1 / 3, 1 / 3, 0)),
    ('unique', 'b', (.5, 0, .5, 0)),
    ('class_uniform', None, (.25, .5, .25, 0)),
    ('class_uniform', 'a', (0, .75, .25, 0)),
])
def test_probabilities(make_rng, sampling, exclude_id, expected):
    found = shares(6000, TOY, [1, 2, 3], sampling, exclude_id, rng=make_rng(0))
    np.testing.assert_allclose(found, expected, atol=0.025)
    assert [f > 0 for f in found] == [e > 0 for e in expected]


@pytest.mark.parametrize('sampling', ['multiset', 'unique', 'class_uniform'])
def test_nothing_to_query(sampling):
    """No list, no class or only excluded ones: any labeled image, also one that is in no list."""
    hidden = ClassIndex(TOY.ids, TOY.areas, CLASSES, exclude=[1])
    for index, classes in ((TOY, [3]), (TOY, []), (hidden, [1, 3]), (TOY, [77])):
        np.testing.assert_allclose(shares(4000, index, classes, sampling), [.25] * 4, atol=0.03)
        np.testing.assert_allclose(shares(4000, index, classes, sampling, 'b'), [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    np.testing.assert_allclose(shares(4000, hidden, [1, 2], sampling), [0, .5, .5, 0], atol=0.03)


def test_class_uniform_balances_rare_classes():
    index = ClassIndex('abcd', [{}, dict(a=.5, b=.5, c=.5), dict(d=.5), {}], CLASSES)
    np.testing.assert_allclose(shares(4000, index, [1, 2, 3], 'class_uniform'), [1 / 6, 1 / 6, 1 / 6, .5], atol=0.03)
    np.testing.assert_allclose(shares(4000, index, [1, 2, 3], 'multiset'), [.25] * 4, atol=0.03)
    assert shares(50, index, [1, 2], 'class_uniform', 'd')[3] == 0


def test_the_image_itself_is_the_last_resort():
    lonely = ClassIndex('ab', [{}, dict(a=.5), {}, {}], CLASSES)
    for sampling in ('multiset', 'unique', 'class_uniform'):
        assert shares(20, lonely, [1], sampling, 'a')[0] == 1
        assert shares(20, ClassIndex('a', [{}] * 4, CLASSES), [], sampling, 'a')[0] == 1


def test_draw_is_seeded_and_sampling_named():
    rows = [[draw_guide(TOY, [1, 2], np.random.default_rng(s)) for s in range(20)] for _ in range(2)]
    assert rows[0] == rows[1] and len(set(rows[0])) > 1
    with pytest.raises(ValueError, match="got 'uniform'"):
        draw_guide(TOY, [1], np.random, 'uniform')


def write(root, folder, masks):
    """Images whose red channel is the mask, and the masks."""
    for name, mask in masks.items():
        mask = np.asarray(mask, np.uint8)
        for kind in (folder, 'ann_' + folder):
            os.makedirs(osp.dirname(root / kind / name), exist_ok=True)
        Image.fromarray(np.stack([mask] * 3, -1)).save(root / f'{folder}/{name}.png')
        Image.fromarray(mask).save(root / f'ann_{folder}/{name}.png')


def halves(left, right, size=SIZE):
    mask = np.full(size, left)
    mask[:, size[1] // 2:] = right
    return mask


def source(root, folder, pipeline=PIPELINE, serialize_data=False, **kwargs):
    # Serializing collects garbage, a tenth of a second per dataset; the tests of whole batches do it.
    return dict(type='BaseSegDataset', data_root=str(root), img_suffix='.png', metainfo=dict(classes=CLASSES),
                data_prefix=dict(img_path=folder, seg_map_path='ann_' + folder), pipeline=copy.deepcopy(pipeline),
                serialize_data=serialize_data, **kwargs)


@pytest.fixture
def make(tmp_path):
    """Writes masks of unlabeled (pseudo-labels) and labeled images and pairs them."""

    def make(primary, labeled, index_args=None, pipeline=PIPELINE, **kwargs):
        write(tmp_path, 'l', labeled)
        if primary is not None:
            write(tmp_path, 'u', primary)
        labeled = DATASETS.build(source(tmp_path, 'l', pipeline))
        index = ClassIndex.build(labeled, **(index_args or {}))
        return GuidedPairDataset(source(tmp_path, 'l' if primary is None else 'u'), labeled, index, **kwargs)

    return make


LABELED = dict(a=halves(0, 1), b=halves(1, 2), c=halves(0, 2), d=halves(0, 0))


def guide_of(dataset, index=0):
    return dataset[index]['data_samples'].guide


def test_packing(make):
    dataset = make({'u/x': halves(1, 0)}, LABELED, dict(exclude=[0]))
    sample = dataset[0]
    assert set(sample) == {'inputs', 'data_samples'}
    primary, guide = sample['data_samples'], sample['data_samples'].guide
    assert 'gt_sem_seg' not in primary
    assert primary.pseudo_sem_seg.data.dtype == torch.int64
    assert torch.equal(primary.pseudo_sem_seg.data[0], sample['inputs'][0].long())
    assert (guide.inputs.dtype, guide.inputs.shape) == (torch.uint8, (3, 16, 16))
    # Image and mask were cropped and flipped alike.
    assert torch.equal(guide.gt_sem_seg.data[0], guide.inputs[0].long())
    assert guide.metainfo['guide_id'] in ('a', 'b')
    assert guide.metainfo['img_path'].endswith(f"/l/{guide.guide_id}.png")
    assert (guide.guide_class, guide.has_guide) == (1, True)
    assert type(guide.guide_class) is int and type(guide.has_guide) is bool


def test_guides_follow_the_lists(make):
    dataset = make(dict(x=halves(1, 2)), LABELED, dict(exclude=[0]))
    np.random.seed(0)
    guides = [guide_of(dataset) for _ in range(1500)]
    counts = Counter(g.guide_id for g in guides)
    np.testing.assert_allclose([counts[i] / 1500 for i in 'abcd'], [.25, .5, .25, 0], atol=0.05)
    of_b = Counter(g.guide_class for g in guides if g.guide_id == 'b')
    assert set(of_b) == {1, 2}
    assert abs(of_b[1] / counts['b'] - 0.5) < 0.07
    assert all(g.guide_class == dict(a=1, c=2)[g.guide_id] for g in guides if g.guide_id != 'b')


def test_excluded_class_is_never_queried(make):
    for exclude, expected in (([], {0}), ([0], {-1})):
        dataset = make(dict(x=halves(0, 0)), LABELED, dict(exclude=exclude))
        guides = [guide_of(dataset) for _ in range(40)]
        # Background is shared by a, c and d; excluded, it asks for nothing and any image comes.
        assert {g.guide_class for g in guides} == expected
        assert {g.guide_id for g in guides} == (set('acd') if expected == {0} else set('abcd'))


def test_area_is_counted_in_the_crop_with_its_padding(make):
    """3 % of 16 x 16 is 7.68 pixels; a crop of 8 x 8 is the rest padding."""
    for pixels, expected in ((8, 1), (7, -1)):
        mask = np.full((8, 8), 255)
        mask.flat[:pixels] = 1
        dataset = make(dict(x=mask), dict(a=halves(1, 1)))
        assert guide_of(dataset).guide_class == expected


def test_a_guide_crop_needs_the_area_too(make):
    """The class covers enough of the whole guide, hence shared, but its crops may show too little of it."""
    spread = np.zeros((32, 32))
    spread[::6, ::6] = 1  # 36 of 1024 pixels; a crop shows 4 to 9 of 256
    dataset = make(dict(x=halves(1, 1)), dict(a=spread))
    np.random.seed(0)
    guides = [guide_of(dataset) for _ in range(60)]
    seen = set()
    for guide in guides:
        number = int((guide.gt_sem_seg.data == 1).sum())
        assert number >= 1
        assert guide.has_guide == (number / 256 >= 0.03) == (guide.guide_class == 1)
        seen.add(guide.has_guide)
    assert seen == {True, False}


@pytest.mark.parametrize('pseudo', [halves(255, 255), halves(3, 3)])
def test_no_guide(make, pseudo):
    """All ignored, or a class that no labeled image shows: a labeled image still comes, without a guiding class."""
    dataset = make(dict(x=pseudo), LABELED)
    guides = [guide_of(dataset) for _ in range(60)]
    assert {g.guide_id for g in guides} == set('abcd')
    assert {(g.guide_class, g.has_guide) for g in guides} == {(-1, False)}


def test_missing_class_among_others_is_skipped(make):
    dataset = make(dict(x=halves(2, 3)), LABELED)
    guides = [guide_of(dataset) for _ in range(40)]
    assert {g.guide_id for g in guides} == {'b', 'c'}
    assert {g.guide_class for g in guides} == {2}


class Counting:
    """A real RandomCrop whose calls are counted and whose place may be fixed."""

    def __init__(self, crop, corner=None):
        self.crop, self.corner, self.calls = crop, corner, 0
        self.crop_size = crop.crop_size

    def __call__(self, results):
        self.calls += 1
        if self.corner is None:
            return self.crop(results)
        y, x = self.corner
        for key in ('img', 'gt_seg_map'):
            results[key] = results[key][y:y + 16, x:x + 16]
        return results


def test_crops_are_bounded_and_end_on_the_class(make):
    """No random crop ever hits the class: after 10 of them one is centered on a pixel of it."""
    mask = np.zeros((60, 80))
    mask[-15:, -15:] = 1
    dataset = make(dict(x=halves(1, 1)), dict(a=mask))
    for tries in (10, 3):
        dataset.max_crop_tries = tries
        for _ in range(20):
            dataset._crop = Counting(dataset._crop if not isinstance(dataset._crop, Counting) else dataset._crop.crop,
                                     (0, 0))
            guide = guide_of(dataset)
            assert dataset._crop.calls == tries
            assert guide.inputs.shape == (3, 16, 16)
            assert torch.equal(guide.gt_sem_seg.data[0], guide.inputs[0].long())
            assert tuple(guide.img_shape) == (16, 16)
            assert guide.has_guide  # a pixel of the class is the center, or the crop lies in its corner


def test_centered_crop_in_every_corner(make):
    for y, x in ((0, 0), (0, 79), (59, 0), (59, 79), (30, 40)):
        mask = np.zeros((60, 80))
        mask[y, x] = 1
        dataset = make(dict(x=halves(1, 1)), dict(a=mask), dict(min_area=1e-4))
        dataset._crop = Counting(dataset._crop, (10, 10))
        guide = guide_of(dataset)
        assert guide.inputs.shape == (3, 16, 16)
        assert (guide.gt_sem_seg.data == 1).sum() == 1
        if (y, x) == (30, 40):
            dataset._after = type(dataset._after)([t for t in dataset._after.transforms if 'Flip' not in repr(t)])
            assert guide_of(dataset).gt_sem_seg.data[0, 8, 8] == 1


def test_a_hit_ends_the_search_and_no_shared_class_means_one_crop(make):
    dataset = make(dict(x=halves(1, 1), y=halves(3, 3)), dict(a=halves(1, 1, (40, 40))))
    for index in (0, 1):
        dataset._crop = Counting(dataset._crop)
        guide_of(dataset, index)
        assert dataset._crop.calls == 1


def test_a_class_too_small_in_the_whole_guide_is_not_searched(make):
    """40 of 1600 pixels are less than 3 %, so one crop has to do, although 8 of 256 would be enough in it."""
    mask = np.zeros((40, 40))
    mask[:, -1] = 1
    dataset = make(dict(x=halves(1, 1)), dict(a=mask))
    np.random.seed(0)
    found = set()
    for _ in range(60):
        dataset._crop = Counting(dataset._crop)
        guide = guide_of(dataset)
        assert dataset._crop.calls == 1
        dataset._crop = dataset._crop.crop
        found.add(guide.has_guide)
        assert guide.has_guide == bool((guide.gt_sem_seg.data == 1).any())
    assert found == {True, False}


def test_crops_retry_until_a_hit(make):
    mask = np.zeros((40, 40))
    mask[:8, :8] = 1
    dataset = make(dict(x=halves(1, 1)), dict(a=mask), max_crop_tries=1000)
    np.random.seed(0)
    calls = []
    for _ in range(30):
        dataset._crop = Counting(dataset._crop)
        assert (guide_of(dataset).gt_sem_seg.data == 1).any()
        calls.append(dataset._crop.calls)
        dataset._crop = dataset._crop.crop
    assert max(calls) > 10


def test_small_guide_is_not_padded(make):
    dataset = make(dict(x=halves(1, 1)), dict(a=halves(1, 1, (10, 30))))
    guide = guide_of(dataset)
    assert guide.inputs.shape == (3, 10, 16)
    assert guide.guide_class == 1


def test_stage_one_pairs_labeled_images(make):
    """The primary set is the labeled one: the mask stays ground truth, an image is not its own guide."""
    dataset = make(None, LABELED)
    for index, name in enumerate('abcd'):
        for _ in range(20):
            data_sample = dataset[index]['data_samples']
            assert 'gt_sem_seg' in data_sample and 'pseudo_sem_seg' not in data_sample
            assert data_sample.guide.guide_id != name
    lonely = make(None, dict(a=halves(3, 3), b=halves(0, 0), c=halves(0, 0), d=halves(0, 0)))
    assert {guide_of(lonely).guide_id for _ in range(20)} == {'a'}


def test_seed_fixes_everything(make):
    rng = np.random.default_rng(0)
    masks = {f'{i}': rng.integers(0, 3, (40, 50)) for i in range(5)}
    dataset = make({f'u{i}': m for i, m in masks.items()}, masks)

    def digest(seed):
        np.random.seed(seed)
        rows = [dataset[i]['data_samples'] for i in range(5)]
        return [(r.guide.guide_id, r.guide.guide_class, r.guide.inputs.sum().item(), r.guide.flip,
                 r.pseudo_sem_seg.data.flatten()[:40].tolist()) for r in rows]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_sub_folders_stay_apart(make):
    """Equal base names in different folders are different images, for guides and for overlap."""
    dataset = make({'x/a': halves(1, 1), 'y/a': halves(2, 2)}, {'x/a': halves(2, 2), 'y/a': halves(1, 1)})
    assert {guide_of(dataset, 0).guide_id for _ in range(10)} == {'y/a'}
    assert {guide_of(dataset, 1).guide_id for _ in range(10)} == {'x/a'}


def test_overlap(make, tmp_path):
    """An image that is labeled and has a pseudo-label is refused; equal names in two folders are no overlap."""
    labeled = make(dict(a=halves(1, 1)), LABELED).labeled
    index = ClassIndex.build(labeled)
    write(tmp_path, 'p', dict(a=halves(1, 1)))
    overlap = source(tmp_path, 'l', indices=1)
    overlap['data_prefix'] = dict(img_path='l', seg_map_path='ann_p')
    with pytest.raises(ValueError, match=r'l/a.png is labeled, with mask .*ann_l/a.png, .* mask .*ann_p/a.png'):
        GuidedPairDataset(overlap, labeled, index)
    os.symlink(tmp_path / 'l', tmp_path / 'alias')
    overlap['data_prefix'] = dict(img_path='alias', seg_map_path='ann_p')
    with pytest.raises(ValueError, match='alias/a.png is labeled'):
        GuidedPairDataset(overlap, labeled, index)
    bare = dict(source(tmp_path, 'l'), data_prefix=dict(img_path='l'))
    with pytest.raises(ValueError, match='in the primary set with mask None'):
        GuidedPairDataset(bare, labeled, index)


def test_index_of_another_split(make, tmp_path):
    dataset = make(dict(x=halves(1, 1)), LABELED)
    path = str(tmp_path / 'class_index.json')
    dataset.index.save(path)
    primary, labeled = source(tmp_path, 'u'), source(tmp_path, 'l')
    from_file = GuidedPairDataset(primary, labeled, path)
    assert from_file.index.areas == dataset.index.areas
    for index in (path, dataset.index):
        with pytest.raises(ValueError, match='another labeled split'):
            GuidedPairDataset(primary, dict(labeled, indices=2), index)
        lazy = GuidedPairDataset(primary, dict(labeled, indices=2), index, lazy_init=True)
        with pytest.raises(ValueError, match='another labeled split'):
            lazy[0]
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        GuidedPairDataset(primary, labeled, str(tmp_path / 'nowhere.json'))
    renamed = dict(primary, metainfo=dict(classes=CLASSES[::-1]))
    with pytest.raises(ValueError, match='the primary set has classes'):
        GuidedPairDataset(renamed, labeled, path)
    with pytest.raises(ValueError, match='the labeled set has classes'):
        GuidedPairDataset(primary, dict(labeled, metainfo=dict(classes=CLASSES[::-1])), path)


def test_unfit_sources(make, tmp_path):
    dataset = make(dict(x=halves(1, 1)), LABELED)
    primary, labeled = source(tmp_path, 'u'), source(tmp_path, 'l')
    (tmp_path / 'none.txt').touch()
    for serialize in (True, False):
        empty = dict(ann_file='none.txt', serialize_data=serialize)
        with pytest.raises(ValueError, match='primary set .*empty'):
            GuidedPairDataset(dict(primary, **empty), labeled, dataset.index)
    with pytest.raises(ValueError, match='the labeled set .*empty'):
        GuidedPairDataset(primary, dict(labeled, ann_file='none.txt', serialize_data=True), dataset.index)
    no_crop = [t for t in PIPELINE if t['type'] != 'RandomCrop']
    with pytest.raises(ValueError, match='must have one RandomCrop, found 0'):
        GuidedPairDataset(primary, dict(labeled, pipeline=no_crop), dataset.index)
    union = SemiDataset(labeled, primary)
    with pytest.raises(TypeError, match='one dataset with a pipeline, got SemiDataset'):
        GuidedPairDataset(primary, union, dataset.index)
    for kwargs, message in ((dict(sampling='any'), "got 'any'"), (dict(max_crop_tries=0), 'positive, got 0')):
        with pytest.raises(ValueError, match=message):
            GuidedPairDataset(primary, labeled, dataset.index, **kwargs)
    maskless = [t for t in PIPELINE if t['type'] != 'LoadAnnotations']
    with pytest.raises(ValueError, match='u/x.png came without a mask'):
        GuidedPairDataset(dict(primary, pipeline=maskless), labeled, dataset.index)[0]
    write(tmp_path, 'u', dict(x=halves(1, 1, (16, 17))))
    with pytest.raises(ValueError, match=r'u/x.png came as \(16, 17\), larger than the crop \(16, 16\)'):
        GuidedPairDataset(dict(primary, pipeline=no_crop), labeled, dataset.index)[0]


@pytest.mark.parametrize('folder', ['l', 'ann_l'])
def test_an_unreadable_guide_is_named(make, tmp_path, folder):
    dataset = make(dict(x=halves(1, 1)), dict(a=halves(1, 1)))
    (tmp_path / folder / 'a.png').write_bytes(b'no image')
    union = SemiDataset(source(tmp_path, 'l'), dataset)
    for draw in (lambda: dataset[0], lambda: union[1]):
        with pytest.raises(ValueError, match=r'cannot make a guide of .*/l/a.png and .*/ann_l/a.png'):
            draw()


def test_bare_classes_are_told_once(make):
    records = []

    class Keep(logging.Handler):

        def emit(self, record):
            records.append(record.getMessage())

    logger, handler = MMLogger.get_current_instance(), Keep()
    logger.addHandler(handler)
    try:
        dataset = make(dict(x=halves(3, 3)), dict(a=halves(1, 1)), dict(exclude=[0]))
        for _ in range(3):
            dataset.full_init()
            dataset[0]
    finally:
        logger.removeHandler(handler)
    told = [r for r in records if 'no labeled image shows at least 3.00% of two, three;' in r]
    assert len(told) == 1


def test_as_any_dataset(make, tmp_path):
    dataset = make(dict(x=halves(1, 1), y=halves(2, 2)), LABELED, sampling='unique')
    assert len(dataset) == 2
    assert dataset.metainfo['classes'] == CLASSES
    assert dataset.get_data_info(1)['img_path'] == str(tmp_path / 'u/y.png')
    assert dataset.get_data_info(1)['seg_map_path'] == str(tmp_path / 'ann_u/y.png')
    with pytest.raises(NotImplementedError):
        dataset.get_subset([0])
    path = str(tmp_path / 'class_index.json')
    dataset.index.save(path)
    cfg = dict(type='GuidedPairDataset', primary=dict(source(tmp_path, 'u'), lazy_init=True),
               labeled=dict(source(tmp_path, 'l'), lazy_init=True), index=path, lazy_init=True)
    lazy = DATASETS.build(cfg)
    assert (lazy.index, len(lazy.primary.data_list)) == (path, 0)
    assert len(lazy) == 2
    assert lazy[1]['data_samples'].guide.guide_class == 2
    again = pickle.loads(pickle.dumps(dataset))  # workers that are spawned
    assert again[0]['data_samples'].guide.guide_class == 1


def test_on_line_query(make):
    """Classes may come from elsewhere than the sample's mask: a table, section 10.4."""
    dataset = make(dict(x=halves(1, 1)), LABELED)
    assert {dataset.load_guide([2]).guide_id for _ in range(30)} == {'b', 'c'}
    assert {dataset.load_guide([]).guide_id for _ in range(60)} == set('abcd')
    assert {dataset.load_guide([2], 'b').guide_id for _ in range(20)} == {'c'}


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_of_a_semi_dataset(make, tmp_path, workers):
    """Labeled images plus pseudo-labeled images with guides, through the usual sampler, collate and preprocessor."""
    dataset = make({f'{i}': halves(1, 2, (20, 20)) for i in range(6)}, LABELED)
    path = str(tmp_path / 'class_index.json')
    dataset.index.save(path)
    loader = Runner.build_dataloader(dict(
        batch_size=5, num_workers=workers,
        dataset=dict(type='SemiDataset', labeled=source(tmp_path, 'l', serialize_data=True),
                     unlabeled=dict(type='GuidedPairDataset', primary=source(tmp_path, 'u', serialize_data=True),
                                    labeled=source(tmp_path, 'l', serialize_data=True), index=path)),
        sampler=dict(type='LabeledUnlabeledSampler', counts=(2, 3)),
        collate_fn=dict(type='semi_collate')), seed=0)
    batch = next(iter(loader))
    assert [len(batch[k]['inputs']) for k in ('labeled', 'unlabeled')] == [2, 3]
    assert not any('guide' in s for s in batch['labeled']['data_samples'])
    preprocessor = MODELS.build(dict(type='SemiSegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3, size=(18, 18)))
    preprocessor.cast_data(batch)
    preprocessor(batch, True)
    for sample in batch['unlabeled']['data_samples']:
        assert sample.guide.guide_id in 'abc' and sample.guide.guide_class in (1, 2)
        assert (sample.guide.gt_sem_seg.data == sample.guide.guide_class).any()
        moved = sample.to(torch.device('meta'))
        assert moved.guide.inputs.device.type == moved.guide.gt_sem_seg.data.device.type == 'meta'


def test_stock_collate(make):
    dataset = make(None, LABELED)
    for collate in (pseudo_collate, lambda s: semi_collate(s)['labeled']):
        batch = collate([dataset[i] for i in range(3)])
        assert len(batch['inputs']) == 3
        assert all(s.guide.inputs.shape == (3, 16, 16) for s in batch['data_samples'])


def test_workers_draw_differently_and_repeatably(make):
    rng = np.random.default_rng(0)
    labeled = {f'{i}': rng.integers(0, 3, SIZE) for i in range(30)}
    dataset = make({f'{i}': halves(1, 2) for i in range(8)}, labeled)
    cfg = dict(batch_size=1, num_workers=2, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False),
               collate_fn=dict(type='pseudo_collate'))
    rows = []
    for seed in (0, 0, 5):
        loader = Runner.build_dataloader(cfg, seed=seed)
        rows.append([batch['data_samples'][0].guide.guide_id for batch in loader])
    assert rows[0] == rows[1] != rows[2]
    assert rows[0][::2] != rows[0][1::2]  # the two workers
    assert isinstance(dataset.primary, BaseSegDataset)
