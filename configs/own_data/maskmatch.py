_base_ = ['./data.py', '../_base_/semi/maskmatch.py']
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.labeler.labeler.threshold = 0.8  # as on CamVid, for runs of some thousand steps
_base_.semi.branches[1].augments[-1].block_size = 64 if min(_base_.crop_size) > 400 else 32
_base_.custom_hooks[0].decay = 0.99
model = dict(_base_.semi, start_iter=_base_.steps // 2)
