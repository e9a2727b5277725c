# UniMatch on VOC: 80 passes over the unlabeled list of the 92 setting, 8 images a step: iterations = 80 * (N_u // 8).
_base_ = './voc_80e.py'
train_cfg = dict(max_iters=104880)
param_scheduler = dict(end=104880)
auto_scale_lr = dict(base_batch_size=16)  # 8 labeled + 8 unlabeled images a step
