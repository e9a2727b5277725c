_base_ = './css_mix_tiny_shapes.py'
model = dict(variant='ori')
