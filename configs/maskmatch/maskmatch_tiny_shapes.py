_base_ = '../fixmatch_ema/fixmatch_ema_tiny_shapes.py'
augments = _base_.model.branches[0].augments
model = dict(
    labeler=dict(
        _delete_=True, type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.95),
        scales=(0.5, 1.0, 1.5)),
    branches=[
        dict(augments=augments, loss_weight=0.25),
        dict(augments=[augments[0], dict(type='PatchMask', block_size=16)], loss_weight=0.25, update_bn=False)
    ])
