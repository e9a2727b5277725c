_base_ = './fixmatch_ema_r101_ade20k_316.py'
split = 'splits/ade20k/5052/labeled.txt'  # 1/4
train_dataloader = dict(dataset=dict(labeled=dict(ann_file=split), unlabeled=dict(exclude=split)))
train_cfg = dict(max_iters=113640)
param_scheduler = dict(end=113640)
