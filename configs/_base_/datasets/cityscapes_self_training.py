# Cityscapes as ST and ST++ read it: crop 721, 4 images a GPU, so 4 GPUs make 16 a step.
_base_ = './cityscapes.py'
crop_size = (721, 721)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=19)]
weak = [
    dict(type='RandomResize', scale=(2048, 2048), ratio_range=(0.5, 2.0), keep_ratio=True),  # of the long side
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5)
]
strong = dict(
    type='StrongAugment',
    augments=[
        dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
        dict(type='RandomGrayscale', prob=0.2),
        dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5),
        dict(type='Cutout', prob=0.5)
    ])
pack = dict(type='PackSegInputs')
train_dataloader = dict(dataset=dict(pipeline=load + weak + [pack]))
unlabeled = dict(
    type='UnlabeledDataset',
    data_root=_base_.data_root,
    ann_file='splits/cityscapes/u2pl/186/unlabeled.txt',
    img_suffix='_leftImg8bit.png',
    data_prefix=dict(img_path='leftImg8bit/train'))
pseudo_pipeline = load + weak + [strong, pack]
