# Cityscapes as CSS reads it: crop 769, nothing scaled, 4 labeled + 4 unlabeled images a GPU.
_base_ = './cityscapes_semi.py'
crop_size = (769, 769)
load = [dict(type='LoadImageFromFile')]
masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=19)]
crop = [dict(type='RandomCrop', crop_size=crop_size)]
flip = [dict(type='RandomFlip', prob=0.5)]
pack = [dict(type='PackSegInputs')]
train_dataloader = dict(
    dataset=dict(
        labeled=dict(pipeline=load + masks + crop + flip + pack), unlabeled=dict(pipeline=load + crop + pack)))
