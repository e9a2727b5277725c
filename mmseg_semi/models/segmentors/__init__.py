from .cisc_online import CISCOnline
from .cisc_pair import CISCPair
from .cisc_rectify import CISCRectify
from .css import CSS
from .pcr import PCR
from .semi_encoder_decoder import SemiEncoderDecoder
from .sliding import SlidingEncoderDecoder

__all__ = ['CISCOnline', 'CISCPair', 'CISCRectify', 'CSS', 'PCR', 'SemiEncoderDecoder', 'SlidingEncoderDecoder']
