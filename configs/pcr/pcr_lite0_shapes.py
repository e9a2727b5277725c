_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/shapes_semi.py', '../_base_/semi/pcr.py',
    '../_base_/schedules/demo.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
# A run of 400 steps: its teacher looks back 20 steps, not 100, and labels from the second quarter on.
_base_.custom_hooks[0].decay = 0.95
model = dict(_base_.semi, decode_head=dict(num_classes=7), tap='sep_bottleneck', start_iter=100)
