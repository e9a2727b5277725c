from . import augments, heads, labelers, losses, segmentors
from .data_preprocessor import SemiSegDataPreProcessor

__all__ = ['SemiSegDataPreProcessor', 'augments', 'heads', 'labelers', 'losses', 'segmentors']
