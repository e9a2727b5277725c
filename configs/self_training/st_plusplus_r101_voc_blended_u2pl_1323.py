_base_ = './st_plusplus_r101_voc_classic_92.py'
split = 'splits/voc/blended_u2pl/1323'
train_dataloader = dict(dataset=dict(ann_file=f'{split}/labeled.txt'))
unlabeled = dict(ann_file=f'{split}/unlabeled.txt')
epoch_steps = dict(sup=82, reliable=620, all=1157)
