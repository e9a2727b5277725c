# FixMatch with an EMA teacher as UniMatch V2 runs it: DINOv2-S with DPT on VOC, classic list of 92 labeled images.
# On 4 GPUs: tools/dist_train.sh CONFIG 4. Weights: configs/_base_/backbones/dinov2_small_linear.py
_base_ = [
    '../_base_/backbones/dinov2_small_dpt.py', '../_base_/datasets/voc_semi_518.py',
    '../_base_/semi/fixmatch_ema.py', '../_base_/schedules/dinov2_voc_60e.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
split = 'splits/voc/classic/92'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file=f'{split}/labeled.txt'), unlabeled=dict(ann_file=f'{split}/unlabeled.txt')))
model = dict(_base_.semi)
