# MaskMatch on VOC, blended, U2PL's list of 662 labeled images (1/16).
# On 2 GPUs: tools/dist_train.sh CONFIG 2
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16.py', '../_base_/datasets/voc_semi_unimatch_513.py',
    '../_base_/semi/maskmatch.py', '../_base_/schedules/unimatch_voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
train_cfg = dict(max_iters=99200)
param_scheduler = dict(end=99200)
model = dict(_base_.semi)
