# The labeled-only twin of fixmatch_ema_r101_ade20k_316.py: the same images, network and schedule.
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_ade20k.py', '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_60e.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=8)
