# Pascal VOC 2012 as UniMatch reads it: crop 321, 2 labeled + 2 unlabeled images a GPU, so 4 GPUs make 8 + 8 a step.
# Published padding is black, ours the mean color; no loss counts it.
_base_ = './voc_semi.py'
crop_size = (321, 321)
load = [dict(type='LoadImageFromFile')]
masks = [dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=21)]
weak = [
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='uniform'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    sampler=dict(counts=(2, 2)),
    dataset=dict(labeled=dict(pipeline=load + masks + weak), unlabeled=dict(pipeline=load + weak)))
