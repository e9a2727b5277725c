# MaskMatch (https://arxiv.org/abs/2312.08631) on FixMatch with an EMA teacher. Its abstract fixes the two parts and
# that as little as 30 % of the patches may stay visible; every other number is ours (docs/methods/maskmatch.md).
_base_ = './fixmatch_ema.py'
semi = dict(
    labeler=dict(
        _delete_=True,
        type='MultiScaleLabeler',
        labeler=dict(type='ThresholdLabeler', threshold=0.95),
        scales=(0.5, 1.0, 1.5),
        flip=False,
        every_n=1,  # 2: every other iteration labels with scale 1 alone, for speed
        warm_iters=0),  # so many iterations with scale 1 alone first
    branches=[
        dict(augments=_base_.semi.branches[0].augments, loss_weight=0.25),
        dict(
            augments=[
                *_base_.semi.branches[0].augments[:3],
                dict(
                    type='PatchMask',
                    block_size=64,  # crops up to 400 pixels: 32
                    ratio=0.7,
                    ratio_mode='bernoulli',
                    fill='zero',
                    loss_region='all')
            ],
            loss_weight=0.25,
            update_bn=False)
    ])
