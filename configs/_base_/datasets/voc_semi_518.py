# Pascal VOC 2012 as UniMatch V2 reads it, for patches of 14 pixels: crop 518; test images are resized to the next
# larger multiples of 14 (published: the nearest), and their logits back. 4 labeled + 4 unlabeled images a GPU, so 4
# GPUs make 16 + 16 a step.
_base_ = './voc_semi_unimatch_513.py'
crop_size = (518, 518)
_base_.train_dataloader.dataset.labeled.pipeline[4].crop_size = crop_size
_base_.train_dataloader.dataset.unlabeled.pipeline[2].crop_size = crop_size
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeToMultiple', size_divisor=14),
    dict(type='LoadAnnotations'),
    dict(type='CheckSegMap', num_classes=21),
    dict(type='PackSegInputs')
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
