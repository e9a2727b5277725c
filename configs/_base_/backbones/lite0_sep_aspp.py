# timm's EfficientNet-Lite0, output stride 16, with mmseg's DeepLabV3+, for VOC.
_base_ = '../models/deeplabv3plus_lite0.py'
model = dict(decode_head=dict(num_classes=21))
