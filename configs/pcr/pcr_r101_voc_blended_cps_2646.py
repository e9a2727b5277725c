_base_ = './pcr_r101_voc.py'
split = 'splits/voc/blended_cps/2646'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(start_iter=496)
train_cfg = dict(max_iters=39680)
param_scheduler = dict(end=39680)
