# CSS mix on Cityscapes, U2PL's list of 186 labeled images (1/16). On 4 GPUs: tools/dist_train.sh CONFIG 4
_base_ = [
    '../_base_/models/css_deeplabv3plus_r101v1c-d8_cityscapes.py', '../_base_/datasets/cityscapes_semi_css.py',
    '../_base_/semi/css.py', '../_base_/schedules/css_80k.py', '../_base_/default_runtime.py'
]
_base_.semi.data_preprocessor.size = _base_.crop_size
_base_.semi.branches[0].augments[0].ratio_range = (0.5, 2.0)
_base_.optim_wrapper.optimizer.lr = 3.8e-3  # the paper; the released code: 6.4e-3
_base_.auto_scale_lr.base_batch_size = 32
model = dict(_base_.semi)
