_base_ = './pcr_lite0_camvid_24.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/drives_12/labeled.txt'),
        unlabeled=dict(ann_file='splits/drives_12/unlabeled.txt')))
