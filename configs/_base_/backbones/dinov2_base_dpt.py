# DINOv2-B/14 with DPT. Public weights:
# `python tools/model_converters/dinov2.py CONFIG dinov2_vitb14_pretrain.pth checkpoints/dinov2_base.pth`
_base_ = './dinov2_small_dpt.py'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='checkpoints/dinov2_base.pth')),
    decode_head=dict(
        in_channels=(768, 768, 768, 768), embed_dims=768, post_process_channels=[96, 192, 384, 768], channels=128))
