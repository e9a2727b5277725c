from .pseudo_label_stage import PseudoLabelStage
from .self_training import SelfTrainingRunner
from .stage import Stage
from .train_stage import ExportCheckpointHook, ResumeValidationHook, TrainStage

__all__ = [
    'ExportCheckpointHook', 'PseudoLabelStage', 'ResumeValidationHook', 'SelfTrainingRunner', 'Stage', 'TrainStage'
]
