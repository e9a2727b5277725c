# ST++: three trainings of `steps` each, with masks made in between. tools/self_train.py goes on where it stopped.
_base_ = ['./supervised.py', '../_base_/self_training/st_plusplus.py']
unlabeled = dict(_delete_=True, **{key: value for key, value in _base_.unlabeled_set.items() if key != 'pipeline'})
pseudo_pipeline = _base_.labeled_set.pipeline[:-1] + [
    dict(type='StrongAugment', augments=[
        dict(type='ColorJitter'), dict(type='RandomGrayscale'), dict(type='GaussianBlur'), dict(type='Cutout')]),
    dict(type='PackSegInputs')
]
