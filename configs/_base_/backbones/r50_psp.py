# ResNet-50 with PSPNet.
_base_ = './r50_fcn.py'
model = dict(decode_head=dict(type='PSPHead', pool_scales=(1, 2, 3, 6)))
