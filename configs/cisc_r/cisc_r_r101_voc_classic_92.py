# CISC-R on VOC, classic list of 92 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc_self_training.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
epochs = 80
epoch_steps = dict(sup=5, re1=163, re2=327)  # 32 images of the list a step; fewer than 200 labeled ones count twice
