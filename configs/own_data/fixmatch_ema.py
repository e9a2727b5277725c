_base_ = ['./data.py', '../_base_/semi/fixmatch_ema.py']
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.labeler.threshold = 0.8  # as on CamVid, for runs of some thousand steps
_base_.custom_hooks[0].decay = 0.99
model = dict(_base_.semi, start_iter=_base_.steps // 2)
