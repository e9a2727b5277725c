# Pascal VOC 2012 with the masks of SBD, crop 513: supervised. Where VOC2012 is: environment variable VOC_ROOT.
# Every published setting reads its labels from SegmentationClassAug, also where a mask of VOC exists.
_base_ = '../native_tta.py'
data_root = '{{$VOC_ROOT:data/VOCdevkit/VOC2012}}'
data_hint = (
    'images and masks by `python tools/dataset_converters/voc_aug.py VOCtrainval_11-May-2012.tar benchmark.tgz`, '
    'lists by `python tools/dataset_converters/make_partition.py` (docs/datasets.md, docs/partitions.md)')
crop_size = (513, 513)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=21),
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='halves'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [  # whole images at their own size
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=21),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        ann_file='splits/voc/blended_u2pl/662/labeled.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        ann_file='ImageSets/Segmentation/val.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
