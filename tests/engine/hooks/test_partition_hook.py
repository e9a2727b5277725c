"""What a run says of its images, keeps in its checkpoints, and refuses on resume."""
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_semi.datasets import FolderDataset, SelfTrainingDataset, UnlabeledDataset
from mmseg_semi.datasets.partition import digest
from mmseg_semi.engine.hooks.partition_hook import describe, folder_names, split_sides


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture
def make(make_cfg, data_root):
    """Config whose labeled images are those of a list."""
    folder = data_root / 'splits/mine/4'
    folder.mkdir(parents=True)
    (folder / 'labeled.txt').write_text('0\n1\n2\n3\n')
    (data_root / 'other.txt').write_text('3\n2\n1\n0\n')

    def make(work_dir, ann_file='splits/mine/4/labeled.txt', **overrides):
        cfg = make_cfg(work_dir, **{'train_dataloader.dataset.labeled.ann_file': ann_file,
                                    'default_hooks.partition': dict(type='PartitionHook'), **overrides})
        cfg.model.type, cfg.custom_hooks = 'SemiEncoderDecoder', cfg.custom_hooks[:1]
        del cfg.model.prototype_head
        return cfg

    return make


def meta(tmp_path, name):
    return torch.load(tmp_path / name, weights_only=False)['meta'].get('partition')


def test_log_checkpoint_and_resume(make, tmp_path, data_root, caplog):
    logging.getLogger('mmengine').propagate = True
    train(make('one', max_iters=3, log_level='INFO'))
    kept = meta(tmp_path, 'one/iter_3.pth')
    assert kept['labeled'] == dict(count=4, sha256=digest('0123'), name='mine/4')
    assert kept['unlabeled'] == dict(count=8, sha256=digest('01234567')) and kept['val']['count'] == 2
    log = next((tmp_path / 'one').rglob('*.log')).read_text()
    assert f'Partition, labeled: mine/4, 4 images, SHA-256 {digest("0123")}' in log
    # The same images in another order, from another file, are the same partition.
    resumed = dict(resume=True, load_from=str(tmp_path / 'one/iter_3.pth'))
    train(make('two', 'other.txt', max_iters=4, **resumed))
    (data_root / 'other.txt').write_text('3\n2\n1\n5\n')
    with pytest.raises(ValueError, match='cannot resume: .* 4 labeled images .mine/4, SHA-256 .* load_from'):
        train(make('three', 'other.txt', max_iters=4, **resumed))
    train(make('four', 'other.txt', max_iters=3, load_from=resumed['load_from']))  # only its weights
    assert meta(tmp_path, 'four/iter_3.pth')['labeled']['sha256'] == digest('3215')


def test_a_name_given_by_make_partition_wins(make, tmp_path, data_root):
    (data_root / 'splits/mine/4/partition.json').write_text(json.dumps(dict(name='voc_classic/183')))
    train(make('one', max_iters=3))
    assert meta(tmp_path, 'one/iter_3.pth')['labeled']['name'] == 'voc_classic/183'


def test_supervised_runs_on_stock_datasets(make, tmp_path):
    cfg = make('one', max_iters=3)
    labeled = cfg.train_dataloader.dataset.labeled
    cfg.train_dataloader = dict(
        batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(type='RepeatDataset', times=2, dataset=dict(
            type='ConcatDataset', datasets=[labeled, dict(labeled, ann_file='other.txt')])))
    cfg.model.type, cfg.custom_hooks = 'EncoderDecoder', []
    for key in ('labeler', 'branches', 'joint_forward', 'start_iter', 'eval_with'):
        cfg.model.pop(key)
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', size=(33, 33), mean=[0.] * 3, std=[255.] * 3)
    cfg.val_evaluator = dict(type='IoUMetric')
    train(cfg)
    assert meta(tmp_path, 'one/iter_3.pth')['labeled'] == dict(count=4, sha256=digest('0123'), name='{} + {}'.format(
        'data/other', 'mine/4'))


def test_wrappers_of_self_training(data_root):
    def images(split):
        return BaseSegDataset(data_root=str(data_root), img_suffix='.png', metainfo=dict(classes=('a', )),
                              data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'), pipeline=[])

    sides = split_sides(SelfTrainingDataset(images('val'), images('train')))
    assert {side: describe(part)['count'] for side, part in sides.items()} == dict(labeled=2, unlabeled=6)

    class Guided:  # as GuidedPairDataset: of its own it has no images
        primary, ann_file, data_prefix = images('train'), '', dict(img_path='')

    assert describe(Guided()) == dict(count=6, sha256=digest('012345'))


@pytest.fixture
def sites(tmp_path):
    """Makes two sites whose images have the same names; returns a function that builds sets of them."""

    def make(parent):
        for site, count in (('site_a', 3), ('site_b', 4)):
            for part in ('images', 'masks'):
                (tmp_path / parent / site / part).mkdir(parents=True)
                for i in range(count):
                    Image.fromarray(np.full((4, 4), i % 2, np.uint8)).save(
                        tmp_path / parent / site / part / f'{i:03}.{"jpg" if part == "images" else "png"}')

        def concat(*folders):
            return ConcatDataset([FolderDataset(
                data_root=str(tmp_path / parent), metainfo=dict(classes=('a', 'b')), pipeline=[],
                data_prefix=dict(img_path=f'{folder}/images', seg_map_path=f'{folder}/masks')) for folder in folders])

        return concat

    return make


def test_images_of_one_name_in_two_folders_are_two(sites, tmp_path):
    concat = sites('here')
    alone, both = describe(concat('site_a')), describe(concat('site_a', 'site_b'))
    assert alone == dict(count=3, sha256=digest(['000', '001', '002']))
    # A name that no other folder has stays as it is.
    expected = [f'{site}/images/{i:03}' for site in ('site_a', 'site_b') for i in range(3)] + ['003']
    assert both == dict(count=7, sha256=digest(expected)) == describe(concat('site_b', 'site_a'))
    assert both == describe(sites('elsewhere')('site_a', 'site_b'))  # the place of the data does not count


def test_ids_with_their_folder_are_no_other_images(tmp_path):
    """`b/0` of the folder c is not image 0 of the folder b."""
    for name in ('a/0', 'b/0', 'c/b/0'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f'{name}.jpg').write_bytes(b'')
    pools = [UnlabeledDataset(data_root=str(tmp_path), data_prefix=dict(img_path=folder), pipeline=[])
             for folder in 'abc']
    assert describe(ConcatDataset(pools)) == dict(count=3, sha256=digest(['a/0', 'b/0', 'c/b/0']))


def test_an_image_that_two_sources_reach_counts_once(sites, tmp_path):
    concat = sites('here')
    (tmp_path / 'here/link').symlink_to('site_a')
    assert describe(concat('site_a', 'link', 'site_a')) == describe(concat('site_a'))
    (tmp_path / 'here/site_b/images/003.jpg').unlink()
    (tmp_path / 'here/site_b/images/003.jpg').symlink_to(tmp_path / 'here/site_a/images/000.jpg')
    assert describe(concat('site_a', 'site_b'))['count'] == 6
    pools = [UnlabeledDataset(data_root=str(tmp_path / 'here'), data_prefix=dict(img_path=folder), pipeline=[])
             for folder in ('site_a', 'site_a/images')]
    assert describe(ConcatDataset(pools)) == describe(ConcatDataset(pools[::-1]))
    assert describe(ConcatDataset(pools))['count'] == len(pools[0]) == 6 and len(pools[1]) == 3  # masks, too


def test_folders_outside_of_the_data_root_may_move(tmp_path):
    """`folders=['unlabeled', '/disk2/night']`: their common parent is no part of an id."""
    for place in ('here', 'there/deep'):
        for name in (f'{place}/mine/unlabeled/000.jpg', f'{place}/mine/unlabeled/x/1.jpg', 'disk2/night/000.jpg'):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    pools = [UnlabeledDataset(data_root=str(tmp_path / place / 'mine'), pipeline=[],
                              folders=['unlabeled', str(tmp_path / 'disk2/night')]) for place in ('here', 'there/deep')]
    expected = dict(count=3, sha256=digest(['unlabeled/000', 'unlabeled/x/1', 'night/000']))
    assert [describe(pool) for pool in pools] == [expected, expected]
    assert folder_names(['/a/img', '/b/img']) == {'/a/img/': 'a/img/', '/b/img/': 'b/img/'}
