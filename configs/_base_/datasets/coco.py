# COCO 2017, 81 classes, crop 513: supervised. Made by tools/dataset_converters/coco.py; where: environment variable
# COCO_ROOT.
_base_ = '../native_tta.py'
data_root = '{{$COCO_ROOT:data/coco}}'
data_hint = (
    'images and masks by `python tools/dataset_converters/coco.py '
    'train2017.zip val2017.zip annotations_trainval2017.zip`, '
    'lists by `python tools/dataset_converters/make_partition.py` (docs/datasets.md, docs/partitions.md)')
crop_size = (513, 513)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=81),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='uniform'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [  # whole images at their own size
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=81),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='COCO81Dataset',
        data_root=data_root,
        ann_file='splits/coco/232/labeled.txt',
        data_prefix=dict(img_path='train2017', seg_map_path='masks/train2017'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='COCO81Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='val2017', seg_map_path='masks/val2017'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
