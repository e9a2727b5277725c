# CISC-R on COCO (81 classes), list of 232 labeled images (1/512). On 4 GPUs: tools/dist_train.sh CONFIG 4
# Length, rate and crop are UniMatch's: the released code has no COCO.
_base_ = [
    '../_base_/models/st_deeplabv3plus_r101-d8.py', '../_base_/datasets/coco_self_training.py',
    '../_base_/schedules/voc_80e.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
optim_wrapper = dict(optimizer=dict(lr=0.004))
epochs = 30
epoch_steps = dict(sup=100, re1=1844, re2=3689)  # 32 images of the list a step; ours: at least 100 labeled steps
