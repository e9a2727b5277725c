# DINOv2-S/14 of mmpretrain with a linear classifier on the last block. Public weights:
# `python tools/model_converters/dinov2.py CONFIG dinov2_vits14_pretrain.pth checkpoints/dinov2_small.pth`
_base_ = './r50_fcn.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=14)),  # whole patches: mmseg takes the padding off again
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='dinov2-small',
        img_size=518,
        patch_size=14,
        out_type='featmap',
        out_indices=(11, ),
        layer_scale_init_value=1e-5,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dinov2_small.pth')),
    decode_head=dict(
        in_channels=384, in_index=0, channels=384, num_convs=0, concat_input=False, dropout_ratio=0, norm_cfg=None))
