_base_ = './cisc_r_r101_coco_232.py'
split = 'splits/coco/1849/labeled.txt'  # 1/64
train_dataloader = dict(dataset=dict(ann_file=split))
unlabeled = dict(exclude=split)
epoch_steps = dict(sup=100, re1=1819, re2=3638)
