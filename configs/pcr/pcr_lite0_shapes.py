# A backbone swap by inheritance: the demo's run on EfficientNet-Lite0.
_base_ = './pcr_tiny_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        output_stride=16,
        out_indices=(1, 2, 3, 4),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/efficientnet_lite0.pth')),
    decode_head=dict(in_channels=320, in_index=3))
