# ResNet-101 with three 3x3 convolutions in the stem, and mmseg's DeepLabV3+.
_base_ = './r50_sep_aspp.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
