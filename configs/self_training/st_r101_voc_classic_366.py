_base_ = './st_r101_voc_classic_92.py'
split = 'splits/voc/classic/366'
train_dataloader = dict(dataset=dict(ann_file=f'{split}/labeled.txt'))
unlabeled = dict(ann_file=f'{split}/unlabeled.txt')
epoch_steps = dict(sup=22, all=1279)
