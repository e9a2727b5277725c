# DeepLabV3+ on EfficientNet-Lite0, output stride 16: small enough for a laptop.
# Weights: `python tools/model_converters/efficientnet_lite0.py checkpoints/efficientnet_lite0.pth`
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
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        output_stride=16,
        out_indices=(1, 2, 3, 4),  # strides 4, 8, 16, 16
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/efficientnet_lite0.pth')),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_channels=320,
        in_index=3,
        channels=128,
        dilations=(1, 6, 12, 18),
        c1_in_channels=24,
        c1_channels=48,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='ValidCrossEntropyLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
