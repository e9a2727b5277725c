# CISC-R on DeiT-S with DPT, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/deit_small_dpt.py', '../_base_/datasets/voc_self_training_512.py',
    '../_base_/schedules/adamw_voc_80e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
