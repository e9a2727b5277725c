# CISC-R on torchvision's ResNet-50 with mmseg's DeepLabV3+, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/r50_torchvision_sep_aspp.py', '../_base_/datasets/voc_self_training_512.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
