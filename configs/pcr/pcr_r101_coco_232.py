# PCR on COCO (81 classes), list of 232 labeled images (1/512). On 4 GPUs: tools/dist_train.sh CONFIG 4
# Nothing of PCR is published here: its values on VOC, in the setting of UniMatch.
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16_coco.py', '../_base_/datasets/coco_semi.py',
    '../_base_/semi/pcr.py', '../_base_/schedules/unimatch_coco_30e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi, start_iter=14756)  # one pass over the unlabeled images
