# The same for Cityscapes: 19 classes, OHEM, sliding windows of the crop size, whose probabilities are averaged.
_base_ = './unimatch_deeplabv3plus_r101v1c-d16.py'
model = dict(
    type='SlidingEncoderDecoder',
    decode_head=dict(
        num_classes=19,
        # Over the 2 labeled images of a GPU. Change it together with sampler.counts.
        loss_decode=dict(type='OHEMCrossEntropyLoss', thresh=0.7, min_kept=200000)),
    test_cfg=dict(
        mode='slide', crop_size=(801, 801), stride=(534, 534), slide_average='prob', slide_windows='cut'))
