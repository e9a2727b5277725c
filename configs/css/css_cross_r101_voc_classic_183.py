_base_ = './css_mix_r101_voc_classic_183.py'
model = dict(variant='cross')
