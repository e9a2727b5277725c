from .channels_last_hook import ChannelsLastHook
from .ema_teacher_hook import EMATeacherHook
from .frozen_teacher_hook import FrozenTeacherHook
from .guide_share_hook import GuideShareHook
from .kept_share_hook import KeptShareHook
from .prototype_init_hook import PrototypeInitHook

__all__ = [
    'ChannelsLastHook', 'EMATeacherHook', 'FrozenTeacherHook', 'GuideShareHook', 'KeptShareHook', 'PrototypeInitHook'
]
