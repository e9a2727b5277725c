from .channels_last_hook import ChannelsLastHook
from .ema_teacher_hook import EMATeacherHook
from .finite_loss_hook import FiniteLossHook
from .frozen_teacher_hook import FrozenTeacherHook
from .guide_table_hook import GuideTableHook
from .partition_hook import PartitionHook
from .prototype_init_hook import PrototypeInitHook
from .replay_hook import ReplayHook
from .share_hooks import GuideShareHook, KeptShareHook
from .teacher_behind_hook import TeacherBehindHook

__all__ = [
    'ChannelsLastHook', 'EMATeacherHook', 'FiniteLossHook', 'FrozenTeacherHook', 'GuideShareHook', 'GuideTableHook',
    'KeptShareHook', 'PartitionHook', 'PrototypeInitHook', 'ReplayHook', 'TeacherBehindHook'
]
