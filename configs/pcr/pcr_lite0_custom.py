# PCR on your own images: copy this file into configs/pcr/, edit the next five settings, train.
# root/labeled/{images,masks}, root/unlabeled (any folders below it), root/val/{images,masks}; a mask is a PNG of the
# same name as its image whose pixels are class indices 0, 1, ... in the order below, 255 = ignore.
root = 'data/mine'
img_suffix = '.jpg'  # of labeled and validation images; unlabeled ones may have any
classes = ('background', 'foreground')
scale, crop_size = (512, 512), (320, 320)  # images are resized into scale (w, h) x 0.5..2; crops are (h, w)
max_iters = 4000

_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/semi/pcr.py', '../_base_/schedules/laptop.py',
    '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = crop_size
_base_.semi.prototype_head.grid_size = min(32, *crop_size)
_base_.custom_hooks[0].buffers = 'average'  # on CamVid a teacher with copied BN statistics fell behind its student
model = dict(
    _base_.semi, decode_head=dict(num_classes=len(classes)), tap='sep_bottleneck', start_iter=max_iters // 2)
param_scheduler = dict(end=max_iters)
train_cfg = dict(max_iters=max_iters)

weak = [
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
load = [dict(type='LoadImageFromFile')]
masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=len(classes))]
labeled = dict(
    type='BaseSegDataset', data_root=root, metainfo=dict(classes=classes), img_suffix=img_suffix, seg_map_suffix='.png',
    data_prefix=dict(img_path='labeled/images', seg_map_path='labeled/masks'), pipeline=load + masks + weak)
unlabeled = dict(
    type='UnlabeledDataset', data_root=root, data_prefix=dict(img_path='unlabeled'), pipeline=load + weak)
train_dataloader = dict(
    batch_size=16, num_workers=2, persistent_workers=True, collate_fn=dict(type='semi_collate'),
    sampler=dict(type='LabeledUnlabeledSampler', counts=(8, 8)),
    dataset=dict(type='SemiDataset', labeled=labeled, unlabeled=unlabeled))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        labeled, data_prefix=dict(img_path='val/images', seg_map_path='val/masks'),
        pipeline=load + [dict(type='Resize', scale=scale, keep_ratio=True)] + masks + [dict(type='PackSegInputs')]))
test_dataloader = val_dataloader
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
test_evaluator = val_evaluator[0]
