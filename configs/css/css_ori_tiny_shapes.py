_base_ = './css_mix_tiny_shapes.py'
model = dict(variant='ori', hard_threshold=0.97, ramp_mult=0)
