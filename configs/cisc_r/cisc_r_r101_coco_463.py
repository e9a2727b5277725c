_base_ = './cisc_r_r101_coco_232.py'
split = 'splits/coco/463/labeled.txt'  # 1/256
train_dataloader = dict(dataset=dict(ann_file=split))
unlabeled = dict(exclude=split)
epoch_steps = dict(sup=100, re1=1841, re2=3682)
