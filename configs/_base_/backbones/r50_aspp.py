# ResNet-50 with DeepLabV3.
_base_ = './r50_fcn.py'
model = dict(decode_head=dict(type='ASPPHead', dilations=(1, 12, 24, 36)))
