_base_ = './cisc_r_online_r101_coco_232.py'
split = 'splits/coco/925/labeled.txt'  # 1/128
labeled = dict(ann_file=split)
train_dataloader = dict(
    dataset=dict(
        labeled=dict(primary=labeled, labeled=labeled),
        unlabeled=dict(primary=dict(exclude=split), labeled=labeled)))
max_iters = 110010
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(end=max_iters)
auto_scale_lr = dict(base_batch_size=48)  # 16 labeled + 32 unlabeled images a step
