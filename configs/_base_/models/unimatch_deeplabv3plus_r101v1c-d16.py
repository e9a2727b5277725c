# The network of UniMatch: ResNet-101 with a deep stem at output stride 16, dense DeepLabV3+.
# From UniMatch: the stride, the dilations, the 48 channels. Two 3x3 convolutions and no dropout are our choice.
_base_ = './css_deeplabv3plus_r101-d8.py'
model = dict(
    backbone=dict(
        type='ResNetV1c',
        stem_channels=64,  # published: 128, for which there are no public ImageNet weights
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        init_cfg=dict(checkpoint='open-mmlab://resnet101_v1c')),
    decode_head=dict(dilations=(1, 6, 12, 18), num_convs=2))
