# PCR (https://arxiv.org/abs/2210.04388): every option with its published value (docs/methods/pcr.md).
# mmengine merges a key from one base file only, so the leaf lays this over the model: `model = dict(_base_.semi, ...)`.
semi = dict(
    type='PCR',
    data_preprocessor=dict(type='SemiSegDataPreProcessor'),
    labeler=dict(type='ThresholdLabeler', threshold=0.8),  # tau: VOC 0.8, Cityscapes 0.65
    branches=[dict(augments=[dict(type='CutMix')], loss_weight=1.0)],  # lambda_u
    unsup_loss=dict(type='PseudoLabelCrossEntropy', norm='valid'),  # the published code leaves the divisor open
    prototype_head=dict(
        num_prototypes=4,  # K: VOC 4, Cityscapes 3
        temperature=0.1,  # T
        momentum=0.99,  # alpha
        grid_size=32,  # picked pixels per side
        loss_weight=1.0),  # w_p
    predict_with='linear',
    joint_forward=True,  # labeled and mixed images are one BN batch
    start_iter=0,  # published: one pass over the unlabeled list (sup_only_epoch = 1), so it depends on the partition
    eval_with='both')
custom_hooks = [
    dict(type='EMATeacherHook', decay=0.99, buffers='copy'),
    dict(type='PrototypeInitHook'),
    dict(type='KeptShareHook'),
    dict(type='TeacherBehindHook')
]
