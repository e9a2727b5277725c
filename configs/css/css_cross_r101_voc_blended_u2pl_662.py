_base_ = './css_mix_r101_voc_blended_u2pl_662.py'
model = dict(variant='cross')
