"""A real runner on a few generated images."""
import copy
import itertools

import cv2
import numpy as np
import pytest
from mmengine.config import Config

CLASSES = ('a', 'b', 'c', 'd')
NUMBERS = itertools.count()


@pytest.fixture
def data_root(tmp_path):
    """Six labeled, eight unlabeled and two validation images of 33 x 33 in mmseg's layout."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'data'
    for split, count in (('train', 6), ('unlabeled', 8), ('val', 2)):
        (root / 'img' / split).mkdir(parents=True)
        (root / 'ann' / split).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(4, size=(3, 3)), np.ones((11, 11))).astype(np.uint8)
            image = (label[..., None] * 60 + rng.integers(40, size=(33, 33, 3))).astype(np.uint8)
            cv2.imwrite(str(root / 'img' / split / f'{i}.png'), image)
            if split != 'unlabeled':
                cv2.imwrite(str(root / 'ann' / split / f'{i}.png'), label)
    return root


@pytest.fixture
def make_cfg(tiny_pcr_cfg, data_root, tmp_path):

    def make(work_dir='run', max_iters=6, start_iter=2, counts=(2, 2), **overrides):
        tiny_pcr_cfg.update(start_iter=start_iter, eval_with='both')
        load, pack = [dict(type='LoadImageFromFile')], [dict(type='PackSegInputs')]
        masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=4)]

        def dataset(split):
            return dict(
                type='BaseSegDataset', data_root=str(data_root), img_suffix='.png', metainfo=dict(classes=CLASSES),
                data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'), pipeline=load + masks + pack)

        unlabeled = dict(
            type='UnlabeledDataset', data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled'),
            pipeline=load + pack)
        cfg = dict(
            default_scope='mmseg',
            custom_imports=dict(imports=['mmseg_semi']),
            model=copy.deepcopy(tiny_pcr_cfg),
            train_dataloader=dict(
                batch_size=sum(counts), num_workers=0, collate_fn=dict(type='semi_collate'),
                sampler=dict(type='LabeledUnlabeledSampler', counts=counts),
                dataset=dict(type='SemiDataset', labeled=dataset('train'), unlabeled=unlabeled)),
            val_dataloader=dict(
                batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dataset('val')),
            val_evaluator=[dict(type='IoUMetric'), dict(type='StudentIoUMetric')],
            optim_wrapper=dict(
                type='OptimWrapper', constructor='SemiOptimWrapperConstructor',
                optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=3),
            val_cfg=dict(type='ValLoop'),
            custom_hooks=[dict(type='EMATeacherHook', decay=0.6), dict(type='PrototypeInitHook'),
                          dict(type='KeptShareHook', interval=2)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3, max_keep_ckpts=-1)),
            log_processor=dict(by_epoch=False), log_level='WARNING',
            randomness=dict(seed=7), work_dir=str(tmp_path / work_dir),
            # Runs of one name that start in the same second share mmengine's logger, and with it the first one's file.
            experiment_name=f'{work_dir.replace("/", "_")}_{next(NUMBERS)}')
        cfg = Config(cfg)
        cfg.merge_from_dict(overrides)
        return cfg

    return make
