_base_ = './pcr_r101_voc.py'
split = 'splits/voc/classic/1464'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(start_iter=570)
train_cfg = dict(max_iters=45600)
param_scheduler = dict(end=45600)
