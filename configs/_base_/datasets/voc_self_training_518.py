# The same with crops of 518, for patches of 14 pixels; test images are resized to multiples of 14, their logits back.
_base_ = './voc_self_training.py'
crop_size = (518, 518)
_base_.train_dataloader.dataset.pipeline[3].scale = (640, 640)
_base_.train_dataloader.dataset.pipeline[4].size = crop_size
_base_.train_dataloader.dataset.pipeline[5].crop_size = crop_size
_base_.pseudo_pipeline[3].scale = (640, 640)
_base_.pseudo_pipeline[4].size = crop_size
_base_.pseudo_pipeline[5].crop_size = crop_size
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeToMultiple', size_divisor=14),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=21),
    dict(type='PackSegInputs')
]
unlabeled = dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='ResizeToMultiple', size_divisor=14),
    dict(type='PackSegInputs')
])
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
