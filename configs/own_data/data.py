# Your own images: copy this folder (cp -r configs/own_data configs/mine), edit the settings down to the line, train any
# file beside this one. docs/own_data.md shows the way. All folders are below `root` unless they start with '/'.
root = 'data/mine'
classes = ('background', 'foreground')  # in the order of the indices 0, 1, ... in the masks; 255 = ignore
labeled = dict(images='labeled/images', masks='labeled/masks')  # the same folder twice: masks lie beside the images
val = dict(images='val/images', masks='val/masks')
test = None  # or a third such pair of folders; else the tools test on `val`
unlabeled = ['unlabeled']  # several: ['unlabeled/day', dict(path='/disk2/night', weight=3)]
exclude_by = 'path'  # 'content' also finds copies of labeled, val and test images in the unlabeled folders
scale, crop_size = (512, 512), (320, 320)  # images are resized into scale (w, h) x 0.5..2; crops are (h, w)
batch = (8, 8)  # labeled and unlabeled images per step and GPU
steps = 4000
# -------------------------------------------------------------------------------------------------------------------
_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=len(classes)))
param_scheduler = dict(end=steps)
train_cfg = dict(max_iters=steps)

load = [dict(type='LoadImageFromFile')]
masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=len(classes))]
weak = [
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
labeled_set = dict(
    type='FolderDataset',
    data_root=root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img_path=labeled['images'], seg_map_path=labeled['masks']),
    pipeline=load + masks + weak)
val_set = dict(
    labeled_set,
    data_prefix=dict(img_path=val['images'], seg_map_path=val['masks']),
    pipeline=load + [dict(type='Resize', scale=scale, keep_ratio=True)] + masks + [dict(type='PackSegInputs')])
test_set = dict(val_set, data_prefix=dict(img_path=test['images'], seg_map_path=test['masks'])) if test else val_set
unlabeled_set = dict(
    type='UnlabeledDataset',
    data_root=root,
    folders=unlabeled,
    exclude_sets=[labeled_set, val_set, test_set],
    exclude_by=exclude_by,
    pipeline=load + weak)
supervised_dataloader = dict(
    batch_size=batch[0],
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=labeled_set)
train_dataloader = dict(
    batch_size=sum(batch),
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='semi_collate'),
    sampler=dict(type='LabeledUnlabeledSampler', counts=batch),
    dataset=dict(type='SemiDataset', labeled=labeled_set, unlabeled=unlabeled_set))
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=val_set)
test_dataloader = dict(val_dataloader, dataset=test_set)
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])  # the teacher alone: stock tools/test.py --out takes one
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=tuple(int(ratio * side) for side in scale), keep_ratio=True)
             for ratio in (0.75, 1.0, 1.25)],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')]
        ])
]
