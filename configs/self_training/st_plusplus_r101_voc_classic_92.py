# ST++ on VOC, classic list of 92 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/voc_self_training.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/st_plusplus.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)
epochs = 80
epoch_steps = dict(sup=11, reliable=661, all=1316)
