_base_ = './css_mix_r101_cityscapes_u2pl_372.py'
model = dict(variant='cross')
