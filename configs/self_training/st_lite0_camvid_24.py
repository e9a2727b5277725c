# ST under the protocol of docs/benchmarks/camvid.md: no checkpoint is chosen by validation.
_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_self_training.py',
    '../_base_/schedules/laptop.py', '../_base_/self_training/st.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(loss_decode=dict(class_weight=_base_.class_weight)))
pick = 'sup:last'
batch_size = 16  # about 8 labeled and 8 pseudo-labeled images a step
