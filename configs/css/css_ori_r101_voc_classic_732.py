_base_ = './css_mix_r101_voc_classic_732.py'
model = dict(variant='ori')
