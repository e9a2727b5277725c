_base_ = './supervised_r101_ade20k_316.py'
train_dataloader = dict(dataset=dict(ann_file='splits/ade20k/10105/labeled.txt'))
train_cfg = dict(max_iters=75780)
param_scheduler = dict(end=75780)
