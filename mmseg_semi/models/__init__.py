from . import augments, heads, labelers, losses, segmentors
from .data_preprocessor import SemiSegDataPreProcessor
from .guided_preprocessor import GuidedSegDataPreProcessor

__all__ = [
    'GuidedSegDataPreProcessor', 'SemiSegDataPreProcessor', 'augments', 'heads', 'labelers', 'losses', 'segmentors'
]
