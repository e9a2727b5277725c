_base_ = './supervised_r101_cityscapes_u2pl_186.py'
train_dataloader = dict(dataset=dict(ann_file='splits/cityscapes/u2pl/1488/labeled.txt'))
train_cfg = dict(max_iters=18600)
param_scheduler = dict(end=18600)
