_base_ = './fixmatch_ema_r101_ade20k_316.py'
split = 'splits/ade20k/10105/labeled.txt'  # 1/2
train_dataloader = dict(dataset=dict(labeled=dict(ann_file=split), unlabeled=dict(exclude=split)))
train_cfg = dict(max_iters=75780)
param_scheduler = dict(end=75780)
