_base_ = ['./data.py', '../_base_/semi/css.py']
_base_.semi.data_preprocessor.size = _base_.crop_size
# As on CamVid: one network's worth of contrast, and colors only where labels are mixed.
jitter = dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8)
_base_.semi.branches[0].augments = [jitter, dict(type='CutMix')]
_base_.semi.update(labeled_augments=[], teacher_bn='running', representation_head=dict(channels=128))
_base_.semi.share_negatives = True
_base_.custom_hooks[0].buffers = 'average'
model = dict(_base_.semi, tap='sep_bottleneck', start_iter=_base_.steps // 2)
