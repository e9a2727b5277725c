_base_ = './maskmatch_r101_voc_classic_92.py'
split = 'splits/voc/classic/1464'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
train_cfg = dict(max_iters=91120)
param_scheduler = dict(end=91120)
