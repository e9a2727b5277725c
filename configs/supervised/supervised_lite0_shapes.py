_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/shapes.py', '../_base_/schedules/demo.py',
    '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=7))
