# UniMatch on COCO: 30 passes over the unlabeled images of the 232 setting: iterations = 30 * (N_u // 8).
_base_ = './unimatch_voc_80e.py'
optim_wrapper = dict(optimizer=dict(lr=0.004))
train_cfg = dict(max_iters=442680, val_interval=10000)  # published: val after each pass, of about 14,700
param_scheduler = dict(end=442680)
default_hooks = dict(checkpoint=dict(interval=10000))
