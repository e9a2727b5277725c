# DINOv2-S/14 with DPT, the network of UniMatch V2. Theirs also norms blocks 2, 5 and 8, and has biases in DPT's fusion.
_base_ = './dinov2_small_linear.py'
model = dict(
    backbone=dict(out_indices=(2, 5, 8, 11)),
    decode_head=dict(
        _delete_=True,
        type='FeatureMapDPTHead',
        in_channels=(384, 384, 384, 384),
        in_index=(0, 1, 2, 3),
        input_transform='multiple_select',
        embed_dims=384,
        post_process_channels=[48, 96, 192, 384],
        channels=64,
        patch_size=14,
        dropout_ratio=0,
        num_classes=21,
        norm_cfg=None,
        align_corners=True,
        loss_decode=dict(type='ValidCrossEntropyLoss')))
