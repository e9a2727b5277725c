# CISC-R in a single run on Cityscapes, U2PL's list of 186 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/cityscapes_guided.py',
    '../_base_/semi/cisc_r_online.py', '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi, exclude=[], decode_head=dict(num_classes=19))
optim_wrapper = dict(optimizer=dict(lr=0.004))
max_iters = 13920  # 160 passes over the unlabeled list, 32 images a step
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(end=max_iters)
auto_scale_lr = dict(base_batch_size=48)  # 16 labeled + 32 unlabeled images a step
