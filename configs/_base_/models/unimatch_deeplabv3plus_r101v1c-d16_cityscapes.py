# The same for Cityscapes: 19 classes, OHEM, sliding windows of the crop size (published: the windows' probabilities are
# summed and the last ones cut; mmseg sums logits and moves the last ones inwards).
_base_ = './unimatch_deeplabv3plus_r101v1c-d16.py'
model = dict(
    decode_head=dict(
        num_classes=19,
        # Over the 2 labeled images of a GPU. Change it together with sampler.counts.
        loss_decode=dict(type='OHEMCrossEntropyLoss', thresh=0.7, min_kept=200000)),
    test_cfg=dict(mode='slide', crop_size=(801, 801), stride=(534, 534)))
