_base_ = './supervised_r101_ade20k_316.py'
train_dataloader = dict(dataset=dict(ann_file='splits/ade20k/5052/labeled.txt'))
train_cfg = dict(max_iters=113640)
param_scheduler = dict(end=113640)
