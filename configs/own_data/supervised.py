# The labeled images alone: what the other files of this folder have to beat.
_base_ = './data.py'
train_dataloader = dict(_delete_=True, **_base_.supervised_dataloader)
val_evaluator = [_base_.test_evaluator]
