# CamVid at half size for CISC-R in a single run: 4 labeled images with a guide each + 8 unlabeled with a guide a step.
_base_ = './camvid_half_semi.py'
index = dict(min_area=0.01, exclude=[])  # poles and signs never cover 3 % of a photograph
train_dataloader = dict(
    batch_size=12,
    sampler=dict(counts=(4, 8)),
    dataset=dict(
        labeled=dict(
            _delete_=True, type='GuidedPairDataset', primary=_base_.labeled, labeled=_base_.labeled, index=index),
        unlabeled=dict(
            _delete_=True,
            type='OnlineGuidedDataset',
            primary=_base_.train_dataloader.dataset.unlabeled,
            labeled=_base_.labeled,
            index=index)))
