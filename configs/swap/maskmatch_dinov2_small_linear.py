# MaskMatch on DINOv2-S with a linear head, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/dinov2_small_linear.py', '../_base_/datasets/voc_semi_518.py',
    '../_base_/semi/maskmatch.py', '../_base_/schedules/dinov2_voc_60e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
# Cells of about four patches (9 of 57 or 58 pixels a side), scaled images of whole patches.
_base_.semi.branches[1].augments[3].block_size = 56
_base_.semi.labeler.divisor = 14
model = dict(_base_.semi)
