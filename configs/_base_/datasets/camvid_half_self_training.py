# CamVid at half size for self-training. Labeled at half size, too; masks have the size of the photographs.
# Strong augmentation as the protocol of docs/benchmarks/camvid.md has it, without gray and blur, and ST's cutout.
_base_ = './camvid_half.py'
unlabeled = dict(
    type='UnlabeledDataset',
    data_root=_base_.data_root,
    ann_file='splits/drives_24/unlabeled.txt',
    img_suffix='.jpg',
    data_prefix=dict(img_path='img_dir/train'),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=_base_.scale, keep_ratio=True),
        dict(type='PackSegInputs')
    ])
pseudo_pipeline = _base_.train_pipeline[:-1] + [
    dict(type='StrongAugment', augments=[dict(type='ColorJitter'), dict(type='Cutout')]),
    dict(type='PackSegInputs')
]
