"""The options that `_base_/semi/*.py` spell out are those of the specifications."""
from pathlib import Path

from mmengine.config import Config

SEMI = Path(__file__).resolve().parents[2] / 'configs/_base_/semi'
PHOTOMETRIC = [
    dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8),
    dict(type='RandomGrayscale', prob=0.2),
    dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5)
]
CUTMIX = dict(type='CutMix', box='area_ratio', prob=0.5, per='image', partner='flip')
TEACHER = dict(type='EMATeacherHook', decay=0.996, buffers='average')


def load(name):
    cfg = Config.fromfile(SEMI / name)
    return cfg.semi.to_dict(), [hook.to_dict() for hook in cfg.custom_hooks]


def test_fixmatch_ema():
    """baselines.md section 4, EMA step."""
    semi, hooks = load('fixmatch_ema.py')
    assert semi['type'] == 'SemiEncoderDecoder' and semi['joint_forward'] and semi['start_iter'] == 0
    assert semi['decode_head'] == dict(loss_decode=dict(loss_weight=0.5))
    assert semi['labeler'] == dict(type='ThresholdLabeler', threshold=0.95)
    assert semi['branches'] == [dict(augments=[*PHOTOMETRIC, CUTMIX], loss_weight=0.5)]
    assert semi['unsup_loss'] == dict(type='PseudoLabelCrossEntropy', norm='valid')
    assert hooks[0] == TEACHER


def test_maskmatch_is_fixmatch_with_two_parts():
    """maskmatch.md section 6; the unlabeled weights add up to FixMatch's."""
    fixmatch, hooks = load('fixmatch_ema.py')
    semi, same_hooks = load('maskmatch.py')
    assert same_hooks == hooks
    assert semi['labeler'] == dict(type='MultiScaleLabeler', labeler=fixmatch['labeler'], scales=(0.5, 1.0, 1.5),
                                   flip=False, every_n=1, warm_iters=0)
    mask = dict(type='PatchMask', block_size=64, ratio=0.7, ratio_mode='bernoulli', fill='zero', loss_region='all')
    assert semi['branches'] == [
        dict(augments=[*PHOTOMETRIC, CUTMIX], loss_weight=0.25),
        dict(augments=[*PHOTOMETRIC, mask], loss_weight=0.25, update_bn=False)
    ]
    for part in ('labeler', 'branches'):
        semi.pop(part), fixmatch.pop(part)
    assert semi == fixmatch
