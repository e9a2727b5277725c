# Synthetic scenes: 8 labeled + 8 unlabeled images a step. The unlabeled images have no masks at all.
_base_ = './shapes.py'
unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomScale', ratio_range=(0.75, 1.5)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=16,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', counts=(8, 8)),
    collate_fn=dict(type='semi_collate'),
    dataset=dict(
        _delete_=True,
        type='SemiDataset',
        labeled=_base_.labeled,
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=_base_.data_root,
            data_prefix=dict(img_path='img_dir/unlabeled'),
            pipeline=unlabeled_pipeline)))
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
# A test scores the predicting network alone, as the supervised base says: stock tools/test.py --out takes one metric.
