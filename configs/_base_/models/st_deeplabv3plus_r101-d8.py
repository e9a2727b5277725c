# The network of ST, ST++ and CISC-R: torchvision's ResNet-101 at output stride 8, dense DeepLabV3+.
# Published: dropout 0.5 behind the ASPP, 0.1 before the classifier; DeepLabV3PlusHead has one ratio for both.
_base_ = './css_deeplabv3plus_r101-d8.py'
model = dict(decode_head=dict(num_convs=2, dropout_ratio=0.1))
