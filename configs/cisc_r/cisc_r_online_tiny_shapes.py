_base_ = [
    '../_base_/models/fcn_tiny.py', '../_base_/datasets/shapes_guided.py', '../_base_/semi/cisc_r_online.py',
    '../_base_/schedules/demo.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
# As pcr_tiny_shapes.py: here color tells the classes apart.
jitter = dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, prob=1.0)
_base_.semi.branches[0].augments = [jitter, dict(type='CutMix', prob=1.0)]
model = dict(_base_.semi, start_iter=300)
