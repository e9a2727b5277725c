from .multi_scale import MultiScaleLabeler
from .threshold import ThresholdLabeler, require_pixel_reliability

__all__ = ['MultiScaleLabeler', 'ThresholdLabeler', 'require_pixel_reliability']
