# The same for U2PL's lists: crop 513, 4 labeled + 4 unlabeled images a GPU, so 2 GPUs make 8 + 8 a step.
_base_ = './voc_semi_unimatch.py'
crop_size = (513, 513)
_base_.train_dataloader.dataset.labeled.pipeline[4].crop_size = crop_size
_base_.train_dataloader.dataset.unlabeled.pipeline[2].crop_size = crop_size
train_dataloader = dict(batch_size=8, sampler=dict(counts=(4, 4)))
