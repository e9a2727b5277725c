# CISC-R in a single run on COCO (81 classes), 232 labeled images (1/512). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/coco_guided.py',
    '../_base_/semi/cisc_r_online.py', '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi, decode_head=dict(num_classes=81))
optim_wrapper = dict(optimizer=dict(lr=0.004))
max_iters = 110670  # 30 passes over the unlabeled images, 32 a step
train_cfg = dict(max_iters=max_iters, val_interval=10000)
param_scheduler = dict(end=max_iters)
default_hooks = dict(checkpoint=dict(interval=10000))
auto_scale_lr = dict(base_batch_size=48)  # 16 labeled + 32 unlabeled images a step
