# PCR on VOC, blended set, U2PL's list of 662 labeled images (1/16). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/pcr_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc_semi.py',
    '../_base_/semi/pcr.py', '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi, start_iter=620)  # one pass over the unlabeled list
