"""mmseg's registries, and those that mmseg has no place for.

Everything of this package registers straight into mmseg's registries, so configs name our parts without a scope prefix.
"""
from mmengine.registry import FUNCTIONS, Registry
from mmseg.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    RUNNERS,
    TRANSFORMS,
)

# The scope is mmseg's: with a scope of its own every build would log a fallback warning.
BATCH_AUGMENTS = Registry('batch augment', scope='mmseg', locations=['mmseg_semi.models.augments'])
STAGES = Registry('self-training stage', scope='mmseg', locations=['mmseg_semi.engine.runner'])
STAGE_SCORERS = Registry('scorer of a selection stage', scope='mmseg', locations=['mmseg_semi.engine.runner'])

__all__ = [
    'BATCH_AUGMENTS', 'DATASETS', 'DATA_SAMPLERS', 'FUNCTIONS', 'HOOKS', 'METRICS', 'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS', 'RUNNERS', 'STAGES', 'STAGE_SCORERS', 'TRANSFORMS'
]
