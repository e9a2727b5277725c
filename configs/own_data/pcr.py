_base_ = ['./data.py', '../_base_/semi/pcr.py']
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.prototype_head.grid_size = min(32, *_base_.crop_size)
_base_.custom_hooks[0].buffers = 'average'  # on CamVid a teacher with copied BN statistics fell behind its student
model = dict(_base_.semi, tap='sep_bottleneck', start_iter=_base_.steps // 2)
