# A smoke plan: all stages of ST++ in about a minute on two cores. Too short to be better than its first stage.
_base_ = [
    '../_base_/models/fcn_tiny.py', '../_base_/datasets/shapes_self_training.py', '../_base_/schedules/demo.py',
    '../_base_/self_training/st_plusplus.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
epochs = 1
epoch_steps = dict(sup=60, reliable=60, all=60)
