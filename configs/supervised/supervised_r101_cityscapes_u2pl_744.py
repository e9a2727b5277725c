_base_ = './supervised_r101_cityscapes_u2pl_186.py'
train_dataloader = dict(dataset=dict(ann_file='splits/cityscapes/u2pl/744/labeled.txt'))
train_cfg = dict(max_iters=27800)
param_scheduler = dict(end=27800)
