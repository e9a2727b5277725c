# The labeled-only twin of pcr_r101_cityscapes_u2pl_186.py: the same images, network and schedule.
_base_ = [
    '../_base_/models/pcr_deeplabv3plus_r101-d8_cityscapes.py', '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/cityscapes_200e.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)
