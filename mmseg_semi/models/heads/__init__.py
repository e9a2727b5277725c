from .deeplabv3plus_head import DeepLabV3PlusHead
from .dpt_head import FeatureMapDPTHead
from .prototype_head import PrototypeHead
from .representation_head import RepresentationHead

__all__ = ['DeepLabV3PlusHead', 'FeatureMapDPTHead', 'PrototypeHead', 'RepresentationHead']
