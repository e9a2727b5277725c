# CSS mix (https://arxiv.org/abs/2307.09755): every option with its published value (docs/methods/css.md).
photometric = [
    dict(type='ColorJitter', brightness=0.25, contrast=0.25, saturation=0.25, hue=0.25, prob=0.8),
    dict(type='GaussianBlur', sigma=(0.15, 1.15), prob=0.5)
]
semi = dict(
    type='CSS',
    data_preprocessor=dict(type='SemiSegDataPreProcessor'),
    variant='mix',
    labeler=dict(type='ThresholdLabeler', threshold=0),  # every labeled pixel trains; confidence weighs whole images
    branches=[
        dict(
            augments=[
                dict(type='RandomScaleCrop', ratio_range=(0.5, 1.5)),  # VOC 0.5..1.5, Cityscapes 0.5..2.0
                dict(type='CutMix', box='half_width', prob=1.0, partner='next'),
                *photometric,
                dict(type='RandomMirror', prob=0.5)
            ],
            loss_weight=1.0)
    ],
    labeled_augments=photometric,
    unsup_loss=dict(
        type='ImageWeightedCrossEntropy',
        threshold=0.97,  # delta_u
        weight_numerator='all',
        mean_over='positive'),
    representation_head=dict(channels=256, out_channels=256),
    tau_sim=None,  # tau_s: 0.5, cross 0.1; in mix it touches the choice of anchors only
    tau_contrast=0.5,  # tau_c
    contrast_threshold=0.7,  # delta_w
    hard_threshold=None,  # delta_s: 0.8, ori 0.97
    num_anchors=256,
    num_negatives=512,
    share_negatives=False,
    prototype_momentum=0.99,
    prototype_source='student',  # as the released code; the paper's Eq. 2: 'teacher'
    unseen='mask',  # published: 'zero', by which classes without prototype win over negative cosines
    ramp_mult=None,  # -5, ori 0: no ramp
    ramp_iters=None,  # the whole run; published: 200 passes over the labeled list
    warmup_iters=None,
    teacher_bn='batch',
    joint_forward=False,
    start_iter=0,
    eval_with='both')
custom_hooks = [
    dict(type='EMATeacherHook', decay=0.99, buffers='own'),
    dict(type='KeptShareHook'),
    dict(type='TeacherBehindHook')
]
