# 80 passes over the unlabeled list of the 662 setting, 16 images a step: iterations = 80 * (ceil(N_u / 8) // 2).
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='SemiOptimWrapperConstructor',  # leaves the teacher out; for plain models the same as mmengine's
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=1e-4),
    # The published code multiplies the head's rate by 10 for data sets named pascal, and for no other.
    paramwise_cfg=dict(custom_keys=dict(
        decode_head=dict(lr_mult=10.0), auxiliary_head=dict(lr_mult=10.0), representation_head=dict(lr_mult=10.0))))
# A dict, not a list, so that a leaf changes `end` alone.
param_scheduler = dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=49600, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=49600, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='SegVisualizationHook', interval=1),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000, save_best='mIoU', max_keep_ckpts=2),
    finite_loss=dict(type='FiniteLossHook'),
    partition=dict(type='PartitionHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
auto_scale_lr = dict(enable=False, base_batch_size=32)  # 16 labeled + 16 unlabeled images a step
