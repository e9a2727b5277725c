# Cityscapes, crop 769: supervised. Where leftImg8bit and gtFine are: environment variable CITYSCAPES_ROOT.
# The lists hold `city/frame`, such as aachen/aachen_000000_000019.
_base_ = '../native_tta.py'
data_root = '{{$CITYSCAPES_ROOT:data/cityscapes}}'
data_hint = (
    'images and masks by `python tools/dataset_converters/cityscapes.py '
    'leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip`, '
    'lists by `python tools/dataset_converters/make_partition.py` (docs/datasets.md, docs/partitions.md)')
crop_size = (769, 769)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=19),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='halves'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=19),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CityscapesDataset',
        data_root=data_root,
        ann_file='splits/cityscapes/u2pl/186/labeled.txt',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CityscapesDataset',
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
