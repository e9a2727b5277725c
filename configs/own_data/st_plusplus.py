# ST++: three trainings of `steps` each, with masks made in between. tools/self_train.py goes on where it stopped.
_base_ = ['./supervised.py', '../_base_/self_training/st_plusplus.py']
seen = _base_.load + [dict(type='Resize', scale=_base_.scale, keep_ratio=True), dict(type='PackSegInputs')]
unlabeled = dict(_base_.unlabeled_set, _delete_=True, pipeline=seen)  # masks have the images' own size all the same
pseudo_pipeline = _base_.labeled_set.pipeline[:-1] + [
    dict(type='StrongAugment', augments=[
        dict(type='ColorJitter'), dict(type='RandomGrayscale'), dict(type='GaussianBlur'), dict(type='Cutout')]),
    dict(type='PackSegInputs')
]
