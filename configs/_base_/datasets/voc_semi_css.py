# Pascal VOC 2012 as CSS reads it: crop 512, weak views unscaled, 8 labeled + 8 unlabeled images a GPU.
_base_ = './voc_semi.py'
crop_size = (512, 512)
load = [dict(type='LoadImageFromFile')]
masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=21)]
scale = [dict(type='RandomScale', ratio_range=(0.5, 1.5), law='uniform')]
crop = [dict(type='RandomCrop', crop_size=crop_size)]
flip = [dict(type='RandomFlip', prob=0.5)]
pack = [dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=16,
    sampler=dict(counts=(8, 8)),
    dataset=dict(
        labeled=dict(pipeline=load + masks + scale + crop + flip + pack),
        unlabeled=dict(pipeline=load + crop + pack)))
