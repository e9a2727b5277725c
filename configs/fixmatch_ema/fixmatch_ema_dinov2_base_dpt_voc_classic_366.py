# As the config of DINOv2-S. Weights: configs/_base_/backbones/dinov2_base_dpt.py
_base_ = './fixmatch_ema_dinov2_small_dpt_voc_classic_366.py'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='checkpoints/dinov2_base.pth')),
    decode_head=dict(
        in_channels=(768, 768, 768, 768), embed_dims=768, post_process_channels=[96, 192, 384, 768], channels=128))
