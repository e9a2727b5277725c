import types

import pytest

from mmseg_semi.engine.hooks import EMATeacherHook, TeacherBehindHook
from mmseg_semi.registry import MODELS


@pytest.fixture
def runner(tiny_cfg):
    """A stand-in with a real model and a real EMA hook whose memory of 5 updates is full."""
    ema = EMATeacherHook(decay=0.8)
    ema.updates = 5
    lines = []
    return types.SimpleNamespace(model=MODELS.build(dict(tiny_cfg, start_iter=10)), hooks=[ema], iter=100, lines=lines,
                                 logger=types.SimpleNamespace(warning=lines.append))


def validate(hook, runner, *scores):
    for teacher, student in scores:
        hook.after_val_epoch(runner, {'mIoU': teacher, 'student/mIoU': student})


def test_warns_once_after_patience_validations_in_a_row(runner):
    hook = TeacherBehindHook(margin=1.0, patience=3)
    validate(hook, runner, (50, 52), (50, 52), (50, 50.9), (50, 52), (50, 52))
    assert runner.lines == []  # 50.9 broke the row
    validate(hook, runner, (50, 51))
    line, = runner.lines
    assert 'at least 1 points' in line and 'last 3 validations (51.00 against 50.00)' in line
    assert 'EMATeacherHook.decay' in line and 'model.eval_with=student' in line
    validate(hook, runner, (50, 60), (50, 60), (50, 60), (50, 60))
    assert len(runner.lines) == 1


@pytest.mark.parametrize('change', [dict(iter=9), dict(hooks=[])])
def test_validations_before_the_teacher_is_warm_do_not_count(runner, change):
    for name, value in change.items():
        setattr(runner, name, value)
    validate(TeacherBehindHook(patience=1), runner, (10, 90))
    assert runner.lines == []


def test_the_memory_of_the_teacher_must_be_full(runner):
    hook = TeacherBehindHook(patience=1)
    runner.hooks[0].updates = 4
    validate(hook, runner, (10, 90))
    assert runner.lines == []
    runner.hooks[0].updates = 5
    validate(hook, runner, (10, 90))
    assert len(runner.lines) == 1


def test_without_a_score_of_the_student_it_is_silent(runner):
    hook = TeacherBehindHook(patience=1)
    for metrics in (None, {}, {'mIoU': 10.}, {'mIoU': float('nan'), 'student/mIoU': 90.}):
        hook.after_val_epoch(runner, metrics)
    assert runner.lines == []


@pytest.mark.parametrize('wrong', [dict(margin=-1), dict(patience=0)])
def test_wrong_settings_are_named(wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f'TeacherBehindHook.{name} must be >= ., found {value}'):
        TeacherBehindHook(**wrong)
