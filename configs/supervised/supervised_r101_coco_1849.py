_base_ = './supervised_r101_coco_232.py'
train_dataloader = dict(dataset=dict(ann_file='splits/coco/1849/labeled.txt'))
train_cfg = dict(max_iters=436620)
param_scheduler = dict(end=436620)
