# ResNet-50 with mmseg's DeepLabV3+.
_base_ = './r50_aspp.py'
model = dict(decode_head=dict(type='DepthwiseSeparableASPPHead', c1_in_channels=256, c1_channels=48))
