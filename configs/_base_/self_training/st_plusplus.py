# ST++: ST that begins with the half of the images on which checkpoints agree (docs/self_training.md). Beside it in
# `_base_`: a supervised config whose data also have `unlabeled` and `pseudo_pipeline`.
runner_type = 'SelfTrainingRunner'
# The checkpoints that label; ':last' where validation must not choose.
pick = dict(sup='sup:best', reliable='reliable:best')
epochs = None  # length of every training, together with epoch_steps; None: as the config says
epoch_steps = dict(sup=None, reliable=None, all=None)
batch_size = None  # images per GPU and step of the second and third training; None: as the config says
self_training = dict(stages=[
    # 1. Labeled images only; the checkpoints after one and two thirds are kept.
    dict(
        name='sup',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.sup',
        export=[1 / 3, 2 / 3]),
    # 2. Score: mean IoU of the two earlier checkpoints' predictions with the last one's. The better half is reliable.
    dict(
        name='select',
        type='SelectStage',
        dataset='config:unlabeled',
        ratio=0.5,
        scorer=dict(
            type='CheckpointAgreement', cfg='sup:config', checkpoints=['sup:at_0', 'sup:at_1', 'sup:last'])),
    # 3. Masks of the reliable half: five scales, mirrored, hard labels.
    dict(
        name='label_reliable',
        type='PseudoLabelStage',
        cfg='sup:config',
        checkpoint='config:pick.sup',
        dataset=dict(_from_='config:unlabeled', ann_file='select:reliable')),
    # 4. From ImageNet weights again, on labeled and reliable images, these with strong augmentation.
    dict(
        name='reliable',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.reliable',
        batch_size='config:batch_size',
        dataset=dict(
            type='SelfTrainingDataset',
            labeled='config:train_dataloader.dataset',
            pseudo=dict(
                _from_='config:unlabeled',
                type='PseudoLabeledDataset',
                ann_file='select:reliable',
                mask_dirs=['label_reliable:masks'],
                pipeline='config:pseudo_pipeline'))),
    # 5. Masks of the other half by the better model.
    dict(
        name='label_unreliable',
        type='PseudoLabelStage',
        cfg='reliable:config',
        checkpoint='config:pick.reliable',
        dataset=dict(_from_='config:unlabeled', ann_file='select:unreliable')),
    # 6. From ImageNet weights again, on everything.
    dict(
        name='all',
        type='TrainStage',
        epochs='config:epochs',
        epoch_steps='config:epoch_steps.all',
        batch_size='config:batch_size',
        dataset=dict(
            type='SelfTrainingDataset',
            labeled='config:train_dataloader.dataset',
            pseudo=dict(
                _from_='config:unlabeled',
                type='PseudoLabeledDataset',
                mask_dirs=['label_reliable:masks', 'label_unreliable:masks'],
                pipeline='config:pseudo_pipeline')))
])
