# COCO 2017 for self-training, 81 classes, crop 513, 4 images a GPU, so 4 GPUs make 16 a step.
# Sizes are those of UniMatch, since CISC-R's on COCO are not public.
_base_ = './coco.py'
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=81)]
weak = [
    dict(type='RandomScale', ratio_range=(0.5, 2.0), law='uniform'),
    dict(type='Pad', size=_base_.crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=0.5)
]
pack = dict(type='PackSegInputs')
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=load + weak + [pack]))
unlabeled = dict(  # all images of the folder but the labeled ones
    type='UnlabeledDataset',
    data_root=_base_.data_root,
    exclude='splits/coco/232/labeled.txt',
    img_suffix='.jpg',
    data_prefix=dict(img_path='train2017'))
