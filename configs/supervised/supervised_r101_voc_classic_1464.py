_base_ = './supervised_r101_voc.py'
train_dataloader = dict(dataset=dict(ann_file='splits/voc/classic/1464/labeled.txt'))
train_cfg = dict(max_iters=45600)
param_scheduler = dict(end=45600)
