# SegNeXt-T: MSCAN with the light hamburger decoder.
_base_ = './r50_fcn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MSCAN',
        embed_dims=[32, 64, 160, 256],
        mlp_ratios=[8, 8, 4, 4],
        depths=[3, 3, 5, 2],
        attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
        attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
        drop_path_rate=0.1,
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/segnext/mscan_t_20230227-119e8c9f.pth')),
    decode_head=dict(
        type='LightHamHead',
        in_channels=[64, 160, 256],
        in_index=[1, 2, 3],
        channels=256,
        ham_channels=256,
        ham_kwargs=dict(MD_R=16),
        norm_cfg=dict(type='GN', num_groups=32)))
