_base_ = './cisc_r_online_lite0_camvid_24.py'
labeled, unlabeled = (dict(ann_file=f'splits/drives_12/{name}.txt') for name in ('labeled', 'unlabeled'))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(primary=labeled, labeled=labeled), unlabeled=dict(primary=unlabeled, labeled=labeled)))
class_weight = [4.8, 5.7, 35.1, 3.6, 19.8, 5.9, 31.8, 42.5, 9.9, 38.4, 43.9]  # of these labels
model = dict(
    decode_head=dict(loss_decode=dict(class_weight=class_weight)), unsup_loss=dict(class_weight=class_weight))
