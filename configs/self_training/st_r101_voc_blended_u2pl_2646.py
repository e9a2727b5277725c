_base_ = './st_r101_voc_classic_92.py'
split = 'splits/voc/blended_u2pl/2646'
train_dataloader = dict(dataset=dict(ann_file=f'{split}/labeled.txt'))
unlabeled = dict(ann_file=f'{split}/unlabeled.txt')
epoch_steps = dict(sup=165, all=992)
