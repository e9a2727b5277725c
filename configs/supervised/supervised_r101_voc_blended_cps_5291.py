_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/blended_cps/5291/labeled.txt'))
train_cfg = dict(max_iters=26480)
param_scheduler = dict(end=26480)
