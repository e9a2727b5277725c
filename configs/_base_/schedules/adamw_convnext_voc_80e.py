# The same with rates that fall by stages from the head to the stem, as mmseg trains ConvNeXt-T.
_base_ = './adamw_voc_80e.py'
optim_wrapper = dict(
    constructor='LearningRateDecayOptimizerConstructor',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, num_layers=6, decay_rate=0.9, decay_type='stage_wise'))
