_base_ = './maskmatch_r101_voc_blended_u2pl_662.py'
split = 'splits/voc/blended_u2pl/2646'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=79360)
param_scheduler = dict(end=79360)
