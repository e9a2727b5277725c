_base_ = './fixmatch_ema_dinov2_small_dpt_voc_classic_92.py'
split = 'splits/voc/classic/732'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=36900)
param_scheduler = dict(end=36900)
