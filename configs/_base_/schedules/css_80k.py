# CSS: 80,000 iterations as the released scripts run on 4 GPUs of 8 + 8 images (the paper prints 40,000, batch 16).
max_iters = 80000
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='SemiOptimWrapperConstructor',  # leaves the teacher out; for plain models the same as mmengine's
    optimizer=dict(type='SGD', lr=6.4e-3, momentum=0.9, nesterov=True, weight_decay=5e-4))
# The released code cuts the polynomial at 1e-4, mmengine's ends there: nowhere more than 1e-4 apart.
param_scheduler = dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=max_iters, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='SegVisualizationHook', interval=1),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2000, save_best='mIoU', max_keep_ckpts=2),
    finite_loss=dict(type='FiniteLossHook'),
    partition=dict(type='PartitionHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
auto_scale_lr = dict(enable=False, base_batch_size=64)  # 32 labeled + 32 unlabeled images a step; Cityscapes 16 + 16
