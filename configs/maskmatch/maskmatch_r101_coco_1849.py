_base_ = './maskmatch_r101_coco_232.py'
split = 'splits/coco/1849/labeled.txt'  # 1/64
train_dataloader = dict(dataset=dict(labeled=dict(ann_file=split), unlabeled=dict(exclude=split)))
train_cfg = dict(max_iters=436620)
param_scheduler = dict(end=436620)
