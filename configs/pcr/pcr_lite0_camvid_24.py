_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_semi.py', '../_base_/semi/pcr.py',
    '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.labeler.threshold = 0.95  # 0.8 keeps nine pixels of ten of a teacher that knows few rare classes
model = dict(_base_.semi, tap='sep_bottleneck', start_iter=750)
