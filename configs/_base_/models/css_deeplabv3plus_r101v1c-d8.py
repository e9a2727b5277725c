# The network of CSS on VOC's blended partitions: a deep stem, and the full dilation in every block of a stage.
_base_ = './css_deeplabv3plus_r101-d8.py'
model = dict(
    backbone=dict(
        type='ResNetV1c',
        stem_channels=64,  # published: 128, for which there are no public ImageNet weights
        contract_dilation=False,
        init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')))
