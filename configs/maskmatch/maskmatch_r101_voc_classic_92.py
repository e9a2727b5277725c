# MaskMatch on VOC, classic list of 92 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/unimatch_deeplabv3plus_r101v1c-d16.py', '../_base_/datasets/voc_semi_unimatch.py',
    '../_base_/semi/maskmatch.py', '../_base_/schedules/unimatch_voc_80e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.branches[1].augments[3].block_size = 32
split = 'splits/voc/classic/92'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(_base_.semi)
