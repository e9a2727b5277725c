_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/classic/366/labeled.txt'))
train_cfg = dict(max_iters=51040)
param_scheduler = dict(end=51040)
