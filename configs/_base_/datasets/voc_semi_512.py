# The same with crops of 512, a multiple of the strides and patches of most networks.
_base_ = './voc_semi.py'
crop_size = (512, 512)
_base_.train_dataloader.dataset.labeled.pipeline[4].crop_size = crop_size
_base_.train_dataloader.dataset.unlabeled.pipeline[2].crop_size = crop_size
