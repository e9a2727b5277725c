# The same for Cityscapes: 19 classes, OHEM, sliding windows of the crop size.
_base_ = './css_deeplabv3plus_r101v1c-d8.py'
model = dict(
    decode_head=dict(
        num_classes=19,
        # Published: 50000 for each of the 4 labeled images of a GPU. Change it together with sampler.counts.
        loss_decode=dict(type='OHEMCrossEntropyLoss', thresh=0.7, min_kept=200000)),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
