_base_ = './fixmatch_ema_r101_coco_232.py'
split = 'splits/coco/925/labeled.txt'  # 1/128
train_dataloader = dict(dataset=dict(labeled=dict(ann_file=split), unlabeled=dict(exclude=split)))
train_cfg = dict(max_iters=440100)
param_scheduler = dict(end=440100)
