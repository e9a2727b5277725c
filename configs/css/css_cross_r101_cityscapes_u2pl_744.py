_base_ = './css_mix_r101_cityscapes_u2pl_744.py'
model = dict(variant='cross')
