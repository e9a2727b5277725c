# CISC-R on DINOv2-B with DPT, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/dinov2_base_dpt.py', '../_base_/datasets/voc_self_training_518.py',
    '../_base_/schedules/dinov2_voc_60e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
