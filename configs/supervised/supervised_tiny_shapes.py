_base_ = [
    '../_base_/models/fcn_tiny.py', '../_base_/datasets/shapes.py', '../_base_/schedules/demo.py',
    '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
