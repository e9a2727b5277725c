# The same for COCO's 81 classes (published: an Xception-65 in place of the ResNet).
_base_ = './unimatch_deeplabv3plus_r101v1c-d16.py'
model = dict(decode_head=dict(num_classes=81))
