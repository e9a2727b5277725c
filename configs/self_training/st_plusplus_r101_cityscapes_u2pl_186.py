# ST++ on Cityscapes, U2PL's list of 186 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/cityscapes_self_training.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/st_plusplus.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=19))
optim_wrapper = dict(optimizer=dict(lr=0.004))
auto_scale_lr = dict(base_batch_size=16)
epochs = 240
epoch_steps = dict(sup=23, reliable=180, all=348)
