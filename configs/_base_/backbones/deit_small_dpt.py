# DeiT-S/16 of mmpretrain with DPT on the maps of four blocks.
_base_ = './deit_small_upernet.py'
model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='FeatureMapDPTHead',
        in_channels=(384, 384, 384, 384),
        in_index=(0, 1, 2, 3),
        input_transform='multiple_select',
        embed_dims=384,
        post_process_channels=[48, 96, 192, 384],
        channels=64,
        patch_size=16,
        dropout_ratio=0,
        num_classes=21,
        norm_cfg=None,
        align_corners=True,
        loss_decode=dict(type='ValidCrossEntropyLoss')))
