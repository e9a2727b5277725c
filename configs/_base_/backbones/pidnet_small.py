# PIDNet-S, whose head returns three maps: for `EncoderDecoder` only, see docs/backbones.md.
_base_ = './r50_fcn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='PIDNet',
        channels=32,
        ppm_channels=96,
        num_stem_blocks=2,
        num_branch_blocks=3,
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/pidnet/'
            'pidnet-s_imagenet1k_20230306-715e6273.pth')),
    decode_head=dict(
        type='PIDHead',
        in_channels=128,
        channels=128,
        align_corners=True,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.4),
            dict(type='OhemCrossEntropy', thres=0.9, min_kept=131072),
            dict(type='BoundaryLoss', loss_weight=20.0),
            dict(type='OhemCrossEntropy', thres=0.9, min_kept=131072)
        ]))
