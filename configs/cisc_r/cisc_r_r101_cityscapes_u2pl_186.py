# CISC-R on Cityscapes, U2PL's list of 186 labeled images. On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/cityscapes_self_training.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=19))
optim_wrapper = dict(optimizer=dict(lr=0.004))
exclude = []
min_area = 0.03  # published; thin classes are then hardly ever guides: the log of stage `index` tells their coverage
repeats = 4
epochs = 160
epoch_steps = dict(sup=11, re1=43, re2=87)
