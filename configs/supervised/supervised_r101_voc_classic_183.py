_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/classic/183/labeled.txt'))
train_cfg = dict(max_iters=52000)
param_scheduler = dict(end=52000)
