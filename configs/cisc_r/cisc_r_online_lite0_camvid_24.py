_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_guided.py',
    '../_base_/semi/cisc_r_online.py', '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
# The protocol of docs/benchmarks/camvid.md, as in pcr_lite0_camvid_24.py.
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.branches[0].augments[1:] = [dict(type='CutMix')]
_base_.semi.unsup_loss.class_weight = _base_.class_weight
_base_.semi.update(min_area=_base_.index.min_area, exclude=_base_.index.exclude)
_base_.custom_hooks[0].decay = 0.99
decode_head = dict(loss_decode=dict(class_weight=_base_.class_weight))
model = dict(_base_.semi, start_iter=1000, decode_head=decode_head)
