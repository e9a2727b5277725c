# ResNet-50 with torchvision's 7x7 stem, and mmseg's DeepLabV3+. Weights that are on the disk already:
# `python tools/model_converters/torchvision_resnet.py CONFIG resnet50-0676ba61.pth checkpoints/resnet50.pth`
_base_ = './r50_sep_aspp.py'
model = dict(
    backbone=dict(type='ResNet', style='pytorch', init_cfg=dict(checkpoint='torchvision://resnet50')))
