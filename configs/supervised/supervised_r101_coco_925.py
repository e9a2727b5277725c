_base_ = './supervised_r101_coco_232.py'
train_dataloader = dict(dataset=dict(ann_file='splits/coco/925/labeled.txt'))
train_cfg = dict(max_iters=440100)
param_scheduler = dict(end=440100)
