_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_semi.py', '../_base_/semi/pcr.py',
    '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
# The protocol of docs/benchmarks/camvid.md, which says why.
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.branches[0].augments.insert(
    0, dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8))  # UniMatch's
_base_.semi.unsup_loss.class_weight = _base_.class_weight
_base_.custom_hooks[0].buffers = 'average'
model = dict(
    _base_.semi, tap='sep_bottleneck', start_iter=1000,
    decode_head=dict(loss_decode=dict(class_weight=_base_.class_weight)))
