_base_ = './css_mix_r101_voc_blended_u2pl_5291.py'
model = dict(variant='ori')
