# FixMatch with an EMA teacher on ADE20K, list of 316 labeled images (1/64). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_ade20k.py', '../_base_/datasets/ade20k_semi.py',
    '../_base_/semi/fixmatch_ema.py', '../_base_/schedules/ade20k_60e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
