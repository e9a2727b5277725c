_base_ = './st_plusplus_lite0_camvid_24.py'
train_dataloader = dict(dataset=dict(ann_file='splits/drives_12/labeled.txt'))
unlabeled = dict(ann_file='splits/drives_12/unlabeled.txt')
class_weight = [4.8, 5.7, 35.1, 3.6, 19.8, 5.9, 31.8, 42.5, 9.9, 38.4, 43.9]  # of these labels
model = dict(decode_head=dict(loss_decode=dict(class_weight=class_weight)))
