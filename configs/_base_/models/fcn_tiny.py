# Two residual stages at stride 4, trained from scratch: seconds to minutes on a CPU. For demos and tests.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127., 127., 127.],
        std=[128., 128., 128.],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=2,
        out_indices=(0, 1),
        strides=(1, 1),
        dilations=(1, 2),
        stem_channels=24,
        base_channels=24,
        norm_cfg=norm_cfg),
    decode_head=dict(
        type='FCNHead',
        in_channels=48,
        in_index=1,
        channels=48,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0,
        num_classes=7,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='ValidCrossEntropyLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
