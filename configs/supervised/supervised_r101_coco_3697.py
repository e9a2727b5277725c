_base_ = './supervised_r101_coco_232.py'
train_dataloader = dict(dataset=dict(ann_file='splits/coco/3697/labeled.txt'))
train_cfg = dict(max_iters=429690)
param_scheduler = dict(end=429690)
