_base_ = './st_plusplus_r101_cityscapes_u2pl_186.py'
split = 'splits/cityscapes/u2pl/744'
train_dataloader = dict(dataset=dict(ann_file=f'{split}/labeled.txt'))
unlabeled = dict(ann_file=f'{split}/unlabeled.txt')
epoch_steps = dict(sup=46, reliable=162, all=278)
