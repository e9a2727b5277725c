_base_ = './css_mix_r101_voc_classic_92.py'
model = dict(variant='ori')
