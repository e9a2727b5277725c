# The labeled-only twin of pcr_r101_voc.py: the same 662 images, network and schedule.
_base_ = [
    '../_base_/models/pcr_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc.py',
    '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)
