# COCO as UniMatch reads it: 2 labeled + 2 unlabeled images a GPU, so 4 GPUs make 8 + 8 a step.
# No list of unlabeled images is needed: they are all images of the folder but the labeled ones.
_base_ = './coco.py'
unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='uniform'),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', counts=(2, 2)),
    collate_fn=dict(type='semi_collate'),
    dataset=dict(
        _delete_=True,
        type='SemiDataset',
        labeled=_base_.train_dataloader.dataset,
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=_base_.data_root,
            exclude='splits/coco/232/labeled.txt',
            img_suffix='.jpg',
            data_prefix=dict(img_path='train2017'),
            pipeline=unlabeled_pipeline)))
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
# A test scores the predicting network alone, as the supervised base says: stock tools/test.py --out takes one metric.
