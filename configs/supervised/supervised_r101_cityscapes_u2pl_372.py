_base_ = './supervised_r101_cityscapes_u2pl_186.py'
train_dataloader = dict(dataset=dict(ann_file='splits/cityscapes/u2pl/372/labeled.txt'))
train_cfg = dict(max_iters=32600)
param_scheduler = dict(end=32600)
