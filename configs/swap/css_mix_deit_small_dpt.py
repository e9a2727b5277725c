# CSS mix on DeiT-S with DPT, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/deit_small_dpt.py', '../_base_/datasets/voc_semi_512.py',
    '../_base_/semi/css.py', '../_base_/schedules/adamw_voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
