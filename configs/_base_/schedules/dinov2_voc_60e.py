# UniMatch V2 on VOC: AdamW, the decoder at 40 times the backbone's rate, 60 passes over the unlabeled list of the
# 92 setting, 16 images a step: iterations = 60 * (N_u // 16).
_base_ = './voc_80e.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=40.0), representation_head=dict(lr_mult=40.0))))
train_cfg = dict(max_iters=39300)
param_scheduler = dict(end=39300)
