# Cityscapes: 4 labeled + 4 unlabeled images a GPU, so 4 GPUs make the published 16 + 16 a step.
_base_ = './cityscapes.py'
unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='halves'),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', counts=(4, 4)),
    collate_fn=dict(type='semi_collate'),
    dataset=dict(
        _delete_=True,
        type='SemiDataset',
        labeled=_base_.train_dataloader.dataset,
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=_base_.data_root,
            ann_file='splits/cityscapes/u2pl/186/unlabeled.txt',
            img_suffix='_leftImg8bit.png',
            data_prefix=dict(img_path='leftImg8bit/train'),
            pipeline=unlabeled_pipeline)))
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
# A test scores the predicting network alone, as the supervised base says: stock tools/test.py --out takes one metric.
