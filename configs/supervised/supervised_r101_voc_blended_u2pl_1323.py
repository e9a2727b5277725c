_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/blended_u2pl/1323/labeled.txt'))
train_cfg = dict(max_iters=46320)
param_scheduler = dict(end=46320)
