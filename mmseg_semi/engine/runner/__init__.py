from .checkpoint_agreement import CheckpointAgreement, map_agreement
from .cisc_anchor import CISCAnchor
from .index_stage import IndexStage
from .pseudo_label_stage import PseudoLabelStage
from .resume import ResumeValidationHook
from .select_stage import SelectStage, StageScorer
from .self_training import SelfTrainingRunner
from .stage import Stage
from .train_stage import ExportCheckpointHook, TrainStage

__all__ = [
    'CISCAnchor', 'CheckpointAgreement', 'ExportCheckpointHook', 'IndexStage', 'PseudoLabelStage',
    'ResumeValidationHook', 'SelectStage', 'SelfTrainingRunner', 'Stage', 'StageScorer', 'TrainStage', 'map_agreement'
]
