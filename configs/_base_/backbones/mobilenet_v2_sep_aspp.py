# MobileNetV2, output stride 8, with mmseg's DeepLabV3+.
_base_ = './r50_sep_aspp.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        strides=(1, 2, 2, 1, 1, 1, 1),
        dilations=(1, 1, 1, 2, 2, 4, 4),
        out_indices=(1, 2, 4, 6),
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2')),
    decode_head=dict(in_channels=320, c1_in_channels=24))
