# ResNet-50, output stride 32, with UPerNet. Swin, ConvNeXt and the plain vision transformers change its backbone.
_base_ = './r50_fcn.py'
model = dict(
    backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), contract_dilation=False),
    decode_head=dict(
        type='UPerHead', in_channels=[256, 512, 1024, 2048], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6)))
