# FixMatch with an EMA teacher, as UniMatch V2 runs it (docs/methods/maskmatch.md): every option with its value there.
# mmengine merges a key from one base file only, so the leaf lays this over the model: `model = dict(_base_.semi, ...)`.
semi = dict(
    type='SemiEncoderDecoder',
    data_preprocessor=dict(type='SemiSegDataPreProcessor'),
    decode_head=dict(loss_decode=dict(loss_weight=0.5)),  # L = (L_x + L_s) / 2; halve auxiliary heads too
    labeler=dict(type='ThresholdLabeler', threshold=0.95),  # tau: VOC 0.95, Cityscapes with a ResNet 0
    branches=[
        dict(
            augments=[
                dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
                dict(type='RandomGrayscale', prob=0.2),
                dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5),
                dict(type='CutMix', box='area_ratio', prob=0.5, per='image', partner='flip')
            ],
            loss_weight=0.5)
    ],
    unsup_loss=dict(type='PseudoLabelCrossEntropy', norm='valid'),
    joint_forward=True,  # labeled and strong images are one BN batch
    start_iter=0,
    eval_with='both')
custom_hooks = [
    dict(type='EMATeacherHook', decay=0.996, buffers='average'),
    dict(type='KeptShareHook'),
    dict(type='TeacherBehindHook')
]
