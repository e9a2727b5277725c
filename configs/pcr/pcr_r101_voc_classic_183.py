_base_ = './pcr_r101_voc.py'
split = 'splits/voc/classic/183'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(start_iter=650)
train_cfg = dict(max_iters=52000)
param_scheduler = dict(end=52000)
