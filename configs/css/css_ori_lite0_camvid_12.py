_base_ = './css_mix_lite0_camvid_12.py'
model = dict(variant='ori')
