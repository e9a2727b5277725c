# Synthetic scenes for self-training: the labeled set as ever, a folder of images, what happens to images with masks.
_base_ = './shapes.py'
unlabeled = dict(
    type='UnlabeledDataset', data_root=_base_.data_root, data_prefix=dict(img_path='img_dir/unlabeled'))
pseudo_pipeline = _base_.train_pipeline[:-1] + [
    dict(type='StrongAugment', augments=[
        dict(type='ColorJitter'), dict(type='RandomGrayscale'), dict(type='GaussianBlur'), dict(type='Cutout')]),
    dict(type='PackSegInputs')
]
