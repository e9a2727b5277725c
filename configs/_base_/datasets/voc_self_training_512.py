# The same with crops of 512, a multiple of the strides and patches of most networks, from images scaled alike.
_base_ = './voc_self_training.py'
crop_size = (512, 512)
_base_.train_dataloader.dataset.pipeline[3].scale = (640, 640)
_base_.train_dataloader.dataset.pipeline[4].size = crop_size
_base_.train_dataloader.dataset.pipeline[5].crop_size = crop_size
_base_.pseudo_pipeline[3].scale = (640, 640)
_base_.pseudo_pipeline[4].size = crop_size
_base_.pseudo_pipeline[5].crop_size = crop_size
