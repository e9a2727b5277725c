# BEiT-B/16 of mmpretrain with UPerNet. Its position bias fits one image size: crops and test windows of 512 x 512.
_base_ = './mae_base_upernet.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(_delete_=True, size=(512, 512))),  # small test images fill a window
    backbone=dict(
        type='mmpretrain.BEiTViT',
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/beit/'
            'beit-base_3rdparty_in1k_20221114-c0a4df23.pth')),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
