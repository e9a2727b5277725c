# As the released script runs, its switched-off indicator included (docs/methods/css.md).
_base_ = './css_mix_r101_voc_classic_92.py'
model = dict(tau_sim=0.5, unseen='zero', ramp_iters=400, warmup_iters=0)  # 200 passes of 2 iterations on 4 GPUs
