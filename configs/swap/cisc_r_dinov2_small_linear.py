# CISC-R on DINOv2-S with a linear head, VOC. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/backbones/dinov2_small_linear.py', '../_base_/datasets/voc_self_training_518.py',
    '../_base_/schedules/dinov2_voc_60e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
guidance = dict(similarity_range='affine')  # the head has no ReLU: its features are signed
model = dict(data_preprocessor=dict(size=_base_.crop_size))
