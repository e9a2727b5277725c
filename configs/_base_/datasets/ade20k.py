# ADE20K, 150 classes, crop 513: supervised. Where ADEChallengeData2016 is: environment variable ADE20K_ROOT.
_base_ = '../native_tta.py'
data_root = '{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}'
data_hint = (
    'images and masks by `python tools/dataset_converters/ade20k.py ADEChallengeData2016.zip`, '
    'lists by `python tools/dataset_converters/make_partition.py` (docs/datasets.md, docs/partitions.md)')
crop_size = (513, 513)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),  # the data set shifts the labels: 0 becomes 255, 1 becomes 0
    dict(type='CheckSegMap', num_classes=150),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='uniform'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [  # whole images at their own size
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=150),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        ann_file='splits/ade20k/316/labeled.txt',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
