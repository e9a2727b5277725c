_base_ = './pcr_r101_voc.py'
split = 'splits/voc/blended_cps/1323'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(start_iter=579)
train_cfg = dict(max_iters=46320)
param_scheduler = dict(end=46320)
