# CSS mix on VOC, classic list of 92 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/css_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc_semi_css.py', '../_base_/semi/css.py',
    '../_base_/schedules/css_80k.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
split = 'splits/voc/classic/92'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(_base_.semi)
