_base_ = './supervised_r101_coco_232.py'
train_dataloader = dict(dataset=dict(ann_file='splits/coco/463/labeled.txt'))
train_cfg = dict(max_iters=441840)
param_scheduler = dict(end=441840)
