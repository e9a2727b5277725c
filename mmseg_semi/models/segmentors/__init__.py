from .css import CSS
from .pcr import PCR
from .semi_encoder_decoder import SemiEncoderDecoder
from .sliding import SlidingEncoderDecoder

__all__ = ['CSS', 'PCR', 'SemiEncoderDecoder', 'SlidingEncoderDecoder']
