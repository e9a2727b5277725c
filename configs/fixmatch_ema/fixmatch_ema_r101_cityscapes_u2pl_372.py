_base_ = './fixmatch_ema_r101_cityscapes_u2pl_186.py'
split = 'splits/cityscapes/u2pl/372'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=78000)
param_scheduler = dict(end=78000)
