_base_ = './cisc_r_r101_coco_232.py'
split = 'splits/coco/3697/labeled.txt'  # 1/32
train_dataloader = dict(dataset=dict(ann_file=split))
unlabeled = dict(exclude=split)
epoch_steps = dict(sup=115, re1=1790, re2=3580)
