_base_ = './supervised_lite0_camvid_24.py'
train_dataloader = dict(dataset=dict(ann_file='splits/drives_12/labeled.txt'))
