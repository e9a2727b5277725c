# The steps of voc_80e.py with AdamW at the rates of SegFormer and Swin: transformers and what is made like them.
_base_ = './voc_80e.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
# A list takes the place of the base's dict: a leaf that changes the length repeats both entries.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=1.0, begin=1500, end=49600, by_epoch=False)
]
