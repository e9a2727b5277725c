# PCR on Cityscapes, U2PL's list of 186 labeled images (1/16). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/pcr_deeplabv3plus_r101-d8_cityscapes.py', '../_base_/datasets/cityscapes_semi.py',
    '../_base_/semi/pcr.py', '../_base_/schedules/cityscapes_200e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.labeler.threshold = 0.65
_base_.semi.prototype_head.num_prototypes = 3
model = dict(_base_.semi, start_iter=174)  # one pass over the unlabeled list
