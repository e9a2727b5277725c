# ResNet-101 with torchvision's 7x7 stem, and mmseg's DeepLabV3+. Weights that are on the disk already:
# `python tools/model_converters/torchvision_resnet.py CONFIG resnet101-63fe2227.pth checkpoints/resnet101.pth`
_base_ = './r101_sep_aspp.py'
model = dict(
    backbone=dict(type='ResNet', style='pytorch', init_cfg=dict(checkpoint='torchvision://resnet101')))
