# FixMatch with an EMA teacher on Cityscapes, U2PL's list of 186 labeled images (1/16).
# On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_cityscapes.py',
    '../_base_/datasets/cityscapes_semi_unimatch.py', '../_base_/semi/fixmatch_ema.py',
    '../_base_/schedules/unimatch_cityscapes_240e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.labeler.threshold = 0
model = dict(_base_.semi)
