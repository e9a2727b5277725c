from .multi_scale import MultiScaleLabeler
from .threshold import ThresholdLabeler

__all__ = ['MultiScaleLabeler', 'ThresholdLabeler']
