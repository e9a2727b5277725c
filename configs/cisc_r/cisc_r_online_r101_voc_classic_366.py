_base_ = './cisc_r_online_r101_voc_classic_92.py'
split = 'splits/voc/classic/366'
labeled, unlabeled = (dict(ann_file=f'{split}/{name}.txt') for name in ('labeled', 'unlabeled'))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(primary=labeled, labeled=labeled), unlabeled=dict(primary=unlabeled, labeled=labeled)))
max_iters = 25520  # 80 passes over the unlabeled list, 32 images a step
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(end=max_iters)
auto_scale_lr = dict(base_batch_size=48)  # 16 labeled + 32 unlabeled images a step
