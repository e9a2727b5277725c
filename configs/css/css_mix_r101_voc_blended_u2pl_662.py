# CSS mix on VOC, blended set, U2PL's list of 662 labeled images (1/16). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/css_deeplabv3plus_r101v1c-d8.py', '../_base_/datasets/voc_semi_css.py', '../_base_/semi/css.py',
    '../_base_/schedules/css_80k.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
