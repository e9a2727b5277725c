_base_ = './fixmatch_ema_r101_voc_blended_u2pl_662.py'
split = 'splits/voc/blended_u2pl/5291'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=52880)
param_scheduler = dict(end=52880)
