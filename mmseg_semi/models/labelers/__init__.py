from .threshold import ThresholdLabeler

__all__ = ['ThresholdLabeler']
