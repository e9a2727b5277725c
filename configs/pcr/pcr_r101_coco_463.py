_base_ = './pcr_r101_coco_232.py'
split = 'splits/coco/463/labeled.txt'  # 1/256
train_dataloader = dict(dataset=dict(labeled=dict(ann_file=split), unlabeled=dict(exclude=split)))
model = dict(start_iter=14728)
train_cfg = dict(max_iters=441840)
param_scheduler = dict(end=441840)
