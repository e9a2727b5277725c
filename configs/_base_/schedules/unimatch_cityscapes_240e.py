# UniMatch on Cityscapes: 240 passes over the unlabeled list of the 186 setting: iterations = 240 * (N_u // 8).
_base_ = './cityscapes_200e.py'
optim_wrapper = dict(optimizer=dict(lr=0.005, weight_decay=1e-4))
train_cfg = dict(max_iters=83520)
param_scheduler = dict(end=83520)
auto_scale_lr = dict(base_batch_size=16)  # 8 labeled + 8 unlabeled images a step
