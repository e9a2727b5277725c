import copy

import pytest
import torch
from torch import nn

from mmseg_semi.models.ema import EMA, ema_decay


def net(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model[1].num_batches_tracked.fill_(seed)
    return model


class Student(nn.Module):
    """A student that owns its teacher and more names than it."""

    def __init__(self, seed):
        super().__init__()
        self.backbone = net(seed)
        self.extra_head = nn.Linear(4, 2)
        self.register_buffer('bank', torch.zeros(3))
        self.teacher = nn.Module()
        self.teacher.backbone = net(seed + 1)


def test_decay_toy_numbers():
    assert [ema_decay(s, 0.99) for s in (0, 1, 2)] == pytest.approx([0, 1 / 2, 2 / 3])
    assert ema_decay(98, 0.99) == pytest.approx(0.989899, abs=1e-6)
    assert ema_decay(99, 0.99) == pytest.approx(0.99)
    assert ema_decay(100, 0.99) == 0.99


@pytest.mark.parametrize('student_path, teacher_path', [
    ((1., 3., 6.), (1, 2, 3.333333)), ((1., 2., 3., 8.), (1, 1.5, 2, 3.5))])  # the second: CSS, section 11 item 8
def test_update_toy_numbers(student_path, teacher_path):
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(teacher.weight, 5)
    ema = EMA(teacher, student)
    values = []
    for step, weight in enumerate(student_path):
        nn.init.constant_(student.weight, weight)
        ema.update(ema_decay(step, 0.99))
        values.append(teacher.weight.item())
    assert values == pytest.approx(teacher_path, abs=1e-6)


@pytest.mark.parametrize('updates, cap', [(-1, 0.9), (0, 1.0), (0, -0.1), (3, 1.5)])
def test_decay_out_of_range(updates, cap):
    with pytest.raises(ValueError, match='got'):
        ema_decay(updates, cap)


@pytest.mark.parametrize('buffers', ['copy', 'average', 'own'])
def test_update_equals_loop_over_names(buffers):
    student = Student(0)
    teacher = student.teacher
    ema = EMA(teacher, student, buffers)
    expected = {name: value.clone() for name, value in teacher.state_dict().items()}
    parameters = dict(teacher.named_parameters())
    for step in range(5):
        with torch.no_grad():
            for tensor in student.backbone.parameters():
                tensor.add_(torch.randn_like(tensor))
            student.backbone[1].running_mean.normal_()
            student.backbone[1].num_batches_tracked.add_(1)
        before = {name: value.clone() for name, value in student.state_dict().items() if 'teacher.' not in name}
        decay = 0.3 + 0.1 * step
        ema.update(decay)
        for name, value in before.items():
            assert torch.equal(student.state_dict()[name], value), 'the student is read only'
            if name not in expected:
                continue
            if name in parameters or (buffers == 'average' and value.is_floating_point()):
                expected[name] = decay * expected[name] + (1 - decay) * value
            elif buffers != 'own' or not value.is_floating_point():
                expected[name] = value
    assert set(expected) == set(teacher.state_dict())
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert all(p.grad_fn is None and p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize('buffers', ['copy', 'average', 'own'])
def test_decay_zero_copies_bitwise_over_anything(buffers):
    teacher, student = net(0), net(1)
    with torch.no_grad():
        teacher[0].weight.fill_(float('nan'))
        teacher[1].running_var.fill_(float('inf'))
        student[0].bias.fill_(-0.0)
        student[2].weight.mul_(1e-30)
    EMA(teacher, student, buffers).update(0.)
    for (name, a), b in zip(teacher.state_dict().items(), student.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.signbit(teacher[0].bias).all()


def test_non_finite_student_shows_in_the_teacher():
    teacher, student = net(0), net(1)
    with torch.no_grad():
        student[0].weight[0, 0, 0, 0] = float('inf')
    EMA(teacher, student).update(0.9)
    assert torch.isinf(teacher[0].weight).sum() == 1
    assert torch.isfinite(teacher[2].weight).all()


def test_modules_without_buffers_or_parameters():
    EMA(nn.Linear(2, 2), nn.Linear(2, 2)).update(0.5)
    EMA(nn.ReLU(), nn.ReLU()).update(0.5)


def test_loading_a_checkpoint_keeps_the_pairs():
    teacher, student = net(0), net(1)
    ema = EMA(teacher, student)
    student.load_state_dict(copy.deepcopy(net(5).state_dict()))
    ema.update(0.)
    assert torch.equal(teacher[0].weight, net(5)[0].weight)
    assert torch.equal(teacher[1].running_mean, net(5)[1].running_mean)


def test_misfits_are_named():
    teacher, student = net(0), net(1)
    student[2] = nn.Conv2d(4, 5, 1)
    with pytest.raises(ValueError, match=r'2\.weight: teacher \[2, 4, 1, 1\].*student \[5, 4, 1, 1\]'):
        EMA(teacher, student)
    with pytest.raises(ValueError, match=r'2\.bias: teacher \[2\].*student has none'):
        EMA(teacher, net(1)[:2])
    with pytest.raises(ValueError, match='float64'):
        EMA(teacher, net(1).double())
    with pytest.raises(ValueError, match="'mine'"):
        EMA(teacher, net(1), buffers='mine')
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match='got'):
            EMA(teacher, net(1)).update(decay)
