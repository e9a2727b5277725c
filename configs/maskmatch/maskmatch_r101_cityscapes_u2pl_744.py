_base_ = './maskmatch_r101_cityscapes_u2pl_186.py'
split = 'splits/cityscapes/u2pl/744'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=66720)
param_scheduler = dict(end=66720)
