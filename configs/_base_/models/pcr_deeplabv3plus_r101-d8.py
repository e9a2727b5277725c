# The network of PCR and U2PL: ResNet-101 at output stride 8, dense DeepLabV3+ with a three-layer classifier.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c',
        depth=101,
        stem_channels=64,  # published: 128, for which there are no public ImageNet weights
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        multi_grid=(4, 8, 16),  # the dilations of layer4 themselves, not factors
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet101_v1c')),
    decode_head=dict(
        type='DeepLabV3PlusHead',
        in_channels=2048,
        in_index=3,
        channels=256,
        dilations=(1, 12, 24, 36),
        c1_in_channels=256,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=True,
        # Published: min_kept 100000 over the 2 labeled images of a GPU. The loss ranks the pixels of one GPU, so with
        # 4 labeled images a GPU the same share is 200000. Change it together with sampler.counts.
        loss_decode=dict(type='OHEMCrossEntropyLoss', thresh=0.7, min_kept=200000)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
