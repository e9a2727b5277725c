# The labeled-only twin of fixmatch_ema_r101_coco_232.py: the same images, network and schedule.
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_coco.py', '../_base_/datasets/coco.py',
    '../_base_/schedules/unimatch_coco_30e.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=8)
