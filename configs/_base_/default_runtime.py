custom_imports = dict(imports=['mmseg_semi'])
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds. PyTorch ends a job after 600 in which one GPU waits for another, and labeling or clustering takes longer.
    dist_cfg=dict(backend='nccl', timeout=4 * 3600))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
# Fixed: a resumed run then sees the same images and the same mixes as an unbroken one.
randomness = dict(seed=0)
