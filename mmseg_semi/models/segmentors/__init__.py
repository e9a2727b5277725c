from .cisc_pair import CISCPair
from .cisc_rectify import CISCRectify
from .css import CSS
from .pcr import PCR
from .semi_encoder_decoder import SemiEncoderDecoder

__all__ = ['CISCPair', 'CISCRectify', 'CSS', 'PCR', 'SemiEncoderDecoder']
