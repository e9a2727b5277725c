# CISC-R in a single run on VOC, classic list of 92 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc_guided.py',
    '../_base_/semi/cisc_r_online.py', '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
max_iters = 26160  # 80 passes over the unlabeled list, 32 images a step
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(end=max_iters)
auto_scale_lr = dict(base_batch_size=48)  # 16 labeled + 32 unlabeled images a step
