# CISC-R (docs/methods/cisc_r.md). Beside it in `_base_`: a supervised config whose data also have `unlabeled`.
runner_type = 'SelfTrainingRunner'
# The checkpoints that label and teach; ':last' where validation must not choose.
pick = dict(sup='sup:best', re1='re1:best')
feature_teacher = 're1:best'  # of the second retraining: the latest, as published, or the first ('sup:best')
epochs = None  # length of every training, together with epoch_steps; None: as the config says
epoch_steps = dict(sup=None, re1=None, re2=None)
pairs = 8  # labeled pairs per GPU and step of the first training: 32 on 4 GPUs
counts = (8, 8)  # labeled and unlabeled images per GPU and step of the retrainings
batch_size = 16  # their sum
base_batch_size = 64  # that of 4 GPUs, which the learning rate is for (auto_scale_lr)
min_area = 0.03  # share of an image from which on it shows a class
exclude = [0]  # never queried; [] where class 0 is no background
sampling = 'multiset'
scales = (0.5, 0.75, 1.0, 1.5, 2.0)
reduce = 'sum'
repeats = 1  # crops per labeled image behind the anchors
rectify = dict(
    teacher_view='strong',
    average_ignored=True,
    consistency_weight=0.0,
    augments=[
        dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
        dict(type='RandomGrayscale', prob=0.2),
        dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5)
    ])
guidance = dict(pool_eps=5e-4, similarity_range='relu')
self_training = dict(stages=[
    # 1. Which labeled images show which class.
    dict(
        name='index',
        type='IndexStage',
        labeled='config:train_dataloader.dataset',
        min_area='config:min_area',
        exclude='config:exclude'),
    # 2. Pairs of labeled images, with the consistency of their features.
    dict(
        name='sup',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.sup',
        batch_size='config:pairs',
        dataset=dict(
            type='GuidedPairDataset',
            primary='config:train_dataloader.dataset',
            labeled='config:train_dataloader.dataset',
            index='index:class_index',
            sampling='config:sampling'),
        cfg_options={
            'model.type': 'CISCPair',
            'model.guidance': 'config:guidance',
            'model.data_preprocessor.type': 'GuidedSegDataPreProcessor',
            'train_dataloader.collate_fn': dict(type='semi_collate'),
            'custom_hooks': [dict(type='GuideShareHook')]
        }),
    # 3. Masks of all unlabeled images.
    dict(
        name='label_all',
        type='PseudoLabelStage',
        cfg='sup:config',
        checkpoint='config:pick.sup',
        dataset='config:unlabeled',
        scales='config:scales'),
    # 4. The better half of the unlabeled images, and of each class's labeled ones: the guides from here on.
    dict(
        name='select',
        type='SelectStage',
        dataset='config:unlabeled',
        ratio=0.5,
        scorer=dict(
            type='CISCAnchor',
            cfg='sup:config',
            checkpoint='config:pick.sup',
            labeled='config:train_dataloader.dataset',
            index='index:class_index',
            masks='label_all:masks',
            reduce='config:reduce',
            guide_ratio=0.5,
            min_keep=1,  # published: 0
            repeats='config:repeats')),
    # 5. From ImageNet weights again: labeled images and the reliable half, weighted by guides under the first network.
    dict(
        name='re1',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.re1',
        batch_size='config:batch_size',
        dataset=dict(
            type='SemiDataset',
            labeled='config:train_dataloader.dataset',
            unlabeled=dict(
                type='GuidedPairDataset',
                primary=dict(
                    _from_='config:unlabeled',
                    type='PseudoLabeledDataset',
                    ann_file='select:reliable',
                    mask_dirs=['label_all:masks'],
                    pipeline='config:train_dataloader.dataset.pipeline'),
                labeled='config:train_dataloader.dataset',
                index='select:guide_index',
                sampling='config:sampling')),
        cfg_options={
            'model': dict(_from_='config:rectify', type='CISCRectify', guidance='config:guidance'),
            'model.data_preprocessor.type': 'GuidedSegDataPreProcessor',
            'train_dataloader.collate_fn': dict(type='semi_collate'),
            'train_dataloader.sampler': dict(_delete_=True, type='LabeledUnlabeledSampler', counts='config:counts'),
            'auto_scale_lr.base_batch_size': 'config:base_batch_size',
            'custom_hooks': [dict(type='FrozenTeacherHook', checkpoint='config:pick.sup'), dict(type='GuideShareHook')]
        }),
    # 6. Masks of the other half by the better network.
    dict(
        name='label_unreliable',
        type='PseudoLabelStage',
        cfg='re1:config',
        checkpoint='config:pick.re1',
        dataset=dict(_from_='config:unlabeled', ann_file='select:unreliable'),
        scales='config:scales'),
    # 7. From ImageNet weights again: everything, under the second network.
    dict(
        name='re2',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.re2',
        batch_size='config:batch_size',
        dataset=dict(
            type='SemiDataset',
            labeled='config:train_dataloader.dataset',
            unlabeled=dict(
                type='GuidedPairDataset',
                primary=dict(
                    _from_='config:unlabeled',
                    type='PseudoLabeledDataset',
                    mask_dirs=['label_unreliable:masks', 'label_all:masks'],
                    pipeline='config:train_dataloader.dataset.pipeline'),
                labeled='config:train_dataloader.dataset',
                index='select:guide_index',
                sampling='config:sampling')),
        cfg_options={
            'model': dict(_from_='config:rectify', type='CISCRectify', guidance='config:guidance'),
            'model.data_preprocessor.type': 'GuidedSegDataPreProcessor',
            'train_dataloader.collate_fn': dict(type='semi_collate'),
            'train_dataloader.sampler': dict(_delete_=True, type='LabeledUnlabeledSampler', counts='config:counts'),
            'auto_scale_lr.base_batch_size': 'config:base_batch_size',
            'custom_hooks': [
                dict(type='FrozenTeacherHook', checkpoint='config:feature_teacher'), dict(type='GuideShareHook')
            ]
        })
])
