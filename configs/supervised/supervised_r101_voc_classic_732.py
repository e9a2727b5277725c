_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/classic/732/labeled.txt'))
train_cfg = dict(max_iters=49280)
param_scheduler = dict(end=49280)
