_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_semi.py', '../_base_/semi/maskmatch.py',
    '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
# The protocol of docs/benchmarks/camvid.md, as in pcr_lite0_camvid_24.py.
_base_.semi.labeler.labeler.threshold = 0.8
_base_.semi.branches[0].augments = [_base_.semi.branches[0].augments[0], dict(type='CutMix')]
_base_.semi.branches[1].augments = [_base_.semi.branches[0].augments[0], dict(type='PatchMask', block_size=32)]
_base_.semi.unsup_loss.class_weight = _base_.class_weight
_base_.semi.decode_head.loss_decode.class_weight = _base_.class_weight
_base_.custom_hooks[0].decay = 0.99
model = dict(_base_.semi, start_iter=1000)
