_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_semi.py', '../_base_/semi/pcr.py',
    '../_base_/schedules/laptop_3k.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi, tap='sep_bottleneck', start_iter=1500)
