from .deeplabv3plus_head import DeepLabV3PlusHead
from .prototype_head import PrototypeHead

__all__ = ['DeepLabV3PlusHead', 'PrototypeHead']
