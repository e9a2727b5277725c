_base_ = './css_mix_lite0_camvid_24.py'
model = dict(variant='ori')
