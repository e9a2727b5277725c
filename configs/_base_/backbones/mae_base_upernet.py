# ViT-B/16 pretrained by MAE, of mmpretrain, with UPerNet on a pyramid of four blocks.
_base_ = './r50_upernet.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=16)),  # whole patches: mmseg takes the padding off again
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=512,
        patch_size=16,
        out_type='featmap',
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth',
            prefix='backbone.')),
    neck=dict(type='Feature2Pyramid', embed_dim=768, norm_cfg=_base_.norm_cfg),
    decode_head=dict(in_channels=[768, 768, 768, 768]))
