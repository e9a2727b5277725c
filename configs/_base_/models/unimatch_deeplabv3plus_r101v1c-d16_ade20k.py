# The same for ADE20K's 150 classes (published in this field: DINOv2 alone).
_base_ = './unimatch_deeplabv3plus_r101v1c-d16.py'
model = dict(decode_head=dict(num_classes=150))
