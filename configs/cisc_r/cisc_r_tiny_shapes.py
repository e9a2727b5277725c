# A smoke plan: all stages of CISC-R in about a minute on two cores. Too short to be better than its first stage.
_base_ = [
    '../_base_/models/fcn_tiny.py', '../_base_/datasets/shapes_self_training.py', '../_base_/schedules/demo.py',
    '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
# As pcr_tiny_shapes.py: here color tells the classes apart.
rectify = dict(augments=[dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, prob=1.0)])
epochs = 2
epoch_steps = dict(sup=35, re1=25, re2=25)
scales, base_batch_size = (1.0, ), 16
