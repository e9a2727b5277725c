# CSS mix on torchvision's ResNet-50 with mmseg's DeepLabV3+, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/r50_torchvision_sep_aspp.py', '../_base_/datasets/voc_semi_512.py',
    '../_base_/semi/css.py', '../_base_/schedules/voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
model = dict(_base_.semi)
