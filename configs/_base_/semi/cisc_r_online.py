# CISC-R in a single run, ours (docs/methods/cisc_r.md): every option with its default there.
# The index of the data set (`index` of its base) has the same min_area and exclude: GuideTableHook compares them.
semi = dict(
    type='CISCOnline',
    data_preprocessor=dict(type='GuidedSegDataPreProcessor'),
    min_area=0.03,
    exclude=[0],
    consistency_weight=1.0,  # lambda_c
    guidance=dict(pool_eps=5e-4, similarity_range='relu'),
    labeler=dict(type='ThresholdLabeler', threshold=0),  # every pixel is labeled: W weighs them
    branches=[
        dict(
            augments=[
                dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
                dict(type='RandomGrayscale', prob=0.2),
                dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5)
            ],
            loss_weight=1.0)  # lambda_u
    ],
    unsup_loss=dict(type='PseudoLabelCrossEntropy', norm='valid'),
    joint_forward=True,
    start_iter=0,
    eval_with='both')
custom_hooks = [
    dict(type='EMATeacherHook', decay=0.996, buffers='average'),
    dict(type='GuideTableHook'),
    dict(type='GuideShareHook'),
    dict(type='TeacherBehindHook')
]
