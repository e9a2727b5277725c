# The same with rates that fall by layers from the head to the patch embedding, as mmseg trains BEiT-B.
_base_ = './adamw_convnext_voc_80e.py'
optim_wrapper = dict(
    optimizer=dict(lr=3e-5), paramwise_cfg=dict(num_layers=12, decay_rate=0.9, decay_type='layer_wise'))
