# CISC-R under the protocol of docs/benchmarks/camvid.md: no checkpoint is chosen by validation.
_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_self_training.py',
    '../_base_/schedules/laptop.py', '../_base_/self_training/cisc_r.py', '../_base_/default_runtime.py'
]
decode_head = dict(loss_decode=dict(class_weight=_base_.class_weight))
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=decode_head)
rectify = dict(class_weight=_base_.class_weight, augments=[_base_.rectify.augments[0]])
pick = dict(sup='sup:last', re1='re1:last')
feature_teacher = 're1:last'
pairs, base_batch_size = 4, 16  # 8 labeled images a step, then 8 + 8
min_area, exclude = 0.01, []  # at 3 % one photograph of 24 shows a pole, none a bicyclist
