# ADE20K: the 60 passes of UniMatch V2 over the unlabeled images of the 316 setting: iterations = 60 * (N_u // 8).
# Nothing is published for a ResNet here, so the rates are those of UniMatch on COCO.
_base_ = './unimatch_coco_30e.py'
train_cfg = dict(max_iters=149160, val_interval=2500)
param_scheduler = dict(end=149160)
default_hooks = dict(checkpoint=dict(interval=2500))
