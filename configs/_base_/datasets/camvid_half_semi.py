# CamVid at half size: 8 labeled + 8 unlabeled images a step; the labels of the unlabeled list are never opened.
_base_ = './camvid_half.py'
unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=_base_.scale, ratio_range=(0.5, 2.0), keep_ratio=True),
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
            ann_file='splits/drives_24/unlabeled.txt',
            img_suffix='.jpg',
            data_prefix=dict(img_path='img_dir/train'),
            pipeline=unlabeled_pipeline)))
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
# A test scores the predicting network alone, as the supervised base says: stock tools/test.py --out takes one metric.
