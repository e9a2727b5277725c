# COCO 2017 for CISC-R in a single run, crop 513: 4 labeled + 8 unlabeled images a GPU, each with a guide.
_base_ = './coco_self_training.py'
index = dict(min_area=0.03, exclude=[0])
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=12,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', counts=(4, 8)),
    collate_fn=dict(type='semi_collate'),
    dataset=dict(
        _delete_=True,
        type='SemiDataset',
        labeled=dict(type='GuidedPairDataset', primary=labeled, labeled=labeled, index=index),
        unlabeled=dict(
            type='OnlineGuidedDataset',
            # Without Pad: the preprocessor pads, and knows where no pseudo-label counts.
            primary=dict(_base_.unlabeled, pipeline=[_base_.load[0], _base_.weak[0], *_base_.weak[2:], _base_.pack]),
            labeled=labeled,
            index=index)))
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='StudentIoUMetric', iou_metrics=['mIoU'])]
