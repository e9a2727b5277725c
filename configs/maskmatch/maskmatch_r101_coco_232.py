# MaskMatch on COCO (81 classes), list of 232 labeled images (1/512). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_coco.py', '../_base_/datasets/coco_semi.py',
    '../_base_/semi/maskmatch.py', '../_base_/schedules/unimatch_coco_30e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
