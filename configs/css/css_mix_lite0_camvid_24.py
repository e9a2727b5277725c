_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/camvid_half_semi.py', '../_base_/semi/css.py',
    '../_base_/schedules/laptop.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
# The protocol of docs/benchmarks/camvid.md, as in pcr_lite0_camvid_24.py.
jitter = dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8)
_base_.semi.branches[0].augments = [jitter, dict(type='CutMix')]
_base_.semi.update(labeled_augments=[], teacher_bn='running', representation_head=dict(channels=128))
_base_.semi.share_negatives = True  # the same expectation; on a CPU 256 x 512 negatives a class cost as much as the net
_base_.semi.unsup_loss.class_weight = _base_.class_weight
_base_.custom_hooks[0].buffers = 'average'
decode_head = dict(loss_decode=dict(class_weight=_base_.class_weight))
model = dict(_base_.semi, tap='sep_bottleneck', start_iter=1000, decode_head=decode_head)
