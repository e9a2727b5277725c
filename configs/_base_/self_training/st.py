# ST: train on the labels, label everything, train again on both (docs/self_training.md). Beside it in `_base_`: a
# supervised config whose data also have `unlabeled` and `pseudo_pipeline`.
runner_type = 'SelfTrainingRunner'
pick = 'sup:best'  # the checkpoint that labels; 'sup:last' where validation must not choose
epochs = None  # length of both trainings, together with epoch_steps; None: as the config says
epoch_steps = dict(sup=None, all=None)
batch_size = None  # images per GPU and step of the second training; None: as the config says
self_training = dict(stages=[
    # 1. Labeled images only.
    dict(name='sup', type='TrainStage', epochs='config:epochs', epoch_steps='config:epoch_steps.sup'),
    # 2. Masks of all unlabeled images: five scales, mirrored, hard labels.
    dict(name='label', type='PseudoLabelStage', cfg='sup:config', checkpoint='config:pick', dataset='config:unlabeled'),
    # 3. From ImageNet weights again, on labeled and pseudo-labeled images, these with strong augmentation.
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
                mask_dirs=['label:masks'],
                pipeline='config:pseudo_pipeline')))
])
