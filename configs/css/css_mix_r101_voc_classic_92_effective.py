# The spec's other preset: an indicator that can fire.
_base_ = './css_mix_r101_voc_classic_92.py'
model = dict(tau_sim=0.1)
