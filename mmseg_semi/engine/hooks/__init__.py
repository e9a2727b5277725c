from .channels_last_hook import ChannelsLastHook
from .ema_teacher_hook import EMATeacherHook
from .frozen_teacher_hook import FrozenTeacherHook
from .guide_share_hook import GuideShareHook
from .guide_table_hook import GuideTableHook
from .kept_share_hook import KeptShareHook
from .partition_hook import PartitionHook
from .prototype_init_hook import PrototypeInitHook
from .teacher_behind_hook import TeacherBehindHook

__all__ = [
    'ChannelsLastHook', 'EMATeacherHook', 'FrozenTeacherHook', 'GuideShareHook', 'GuideTableHook', 'KeptShareHook',
    'PartitionHook', 'PrototypeInitHook', 'TeacherBehindHook'
]
