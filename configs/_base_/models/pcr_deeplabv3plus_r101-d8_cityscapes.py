# The same network for Cityscapes: 19 classes, an auxiliary head on layer3, sliding windows of the crop size.
_base_ = './pcr_deeplabv3plus_r101-d8.py'
model = dict(
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=_base_.norm_cfg,
        align_corners=True,
        loss_decode=dict(type='OHEMCrossEntropyLoss', thresh=0.7, min_kept=200000, loss_weight=0.4)),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
