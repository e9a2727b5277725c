import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.losses import PseudoLabelCrossEntropy, weighted_pixel_loss
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Target

NORMS = ('valid', 'kept', 'u2pl')


def target_of(label, weight, valid):
    return Target(label, weight, weight.clone(), valid)


def case(dtype=torch.float64):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, dtype=dtype, requires_grad=True)
    label = torch.randint(0, 4, (2, 5, 5))
    valid = torch.ones(2, 5, 5, dtype=torch.bool)
    valid[0, :, 3:] = False
    weight = torch.rand(2, 5, 5).round() * torch.rand(2, 5, 5) * valid
    return logits, target_of(label, weight, valid)


def slow(logits, target, norm, align_corners):
    logits = F.interpolate(logits, (5, 5), mode='bilinear', align_corners=align_corners)
    total, valid, kept = 0., 0, 0
    for n in range(2):
        for r in range(5):
            for c in range(5):
                if not target.valid[n, r, c]:
                    continue
                valid += 1
                w = target.weight[n, r, c].item()
                if w > 0:
                    kept += 1
                    total = total - w * torch.log_softmax(logits[n, :, r, c], 0)[target.label[n, r, c]]
    return total / {'valid': valid, 'kept': kept, 'u2pl': kept**2 / valid}[norm]


@pytest.mark.parametrize('norm, value', [('valid', 0.15), ('kept', 0.3), ('u2pl', 0.6)])
def test_toy_numbers(norm, value):
    confidence = torch.tensor([[[.9, .7, .8, .5]]])
    loss = torch.tensor([[[.2, 1., .4, 3.]]])
    weight = (confidence >= 0.8).float()
    assert weighted_pixel_loss(loss, weight, torch.ones_like(loss, dtype=torch.bool), norm).item() == \
        pytest.approx(value, abs=1e-7)
    # The same through the module: two classes whose cross-entropy is the toy loss.
    p = torch.exp(-loss[0])
    logits = torch.stack([torch.log(p), torch.log(1 - p)], 1).reshape(1, 2, 1, 4)
    target = target_of(torch.zeros(1, 1, 4, dtype=torch.long), weight, torch.ones(1, 1, 4, dtype=torch.bool))
    assert PseudoLabelCrossEntropy(norm)(logits, target, True).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('align_corners', [True, False])
def test_loss_and_gradient_equal_slow_reference(norm, align_corners):
    logits, target = case()
    loss = PseudoLabelCrossEntropy(norm, loss_weight=0.5)(logits, target, align_corners)
    expected = 0.5 * slow(logits, target, norm, align_corners)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*torch.autograd.grad(loss, logits), *torch.autograd.grad(expected, logits))


@pytest.mark.parametrize('norm', NORMS)
def test_padding_never_counts(norm):
    logits, target = case()
    loss = PseudoLabelCrossEntropy(norm)(logits, target, True)
    careless = target_of(target.label, target.weight + (~target.valid).float(), target.valid)
    torch.testing.assert_close(PseudoLabelCrossEntropy(norm)(logits, careless, True), loss)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('what', ['rejected', 'padding', 'no label'])
def test_nothing_kept_is_a_connected_zero(norm, what):
    logits, target = case(torch.float32)
    if what == 'rejected':
        target = target_of(target.label, torch.zeros_like(target.weight), target.valid)
    elif what == 'padding':
        target = target_of(target.label, target.weight, torch.zeros_like(target.valid))
    else:
        target = target_of(torch.full_like(target.label, 255), target.weight, target.valid)
    loss = PseudoLabelCrossEntropy(norm)(logits, target, True)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_float32_under_autocast():
    logits, target = case(torch.float32)
    exact = PseudoLabelCrossEntropy()(logits, target, True)
    with torch.autocast('cpu', torch.bfloat16):
        loss = PseudoLabelCrossEntropy()(logits, target, True)
        half = PseudoLabelCrossEntropy()(logits.bfloat16(), target, True)
    assert loss.dtype == half.dtype == torch.float32
    torch.testing.assert_close(loss, exact)
    torch.testing.assert_close(half, PseudoLabelCrossEntropy()(logits.bfloat16().float(), target, True))


def test_settings():
    assert MODELS.build(dict(type='PseudoLabelCrossEntropy', norm='u2pl')).norm == 'u2pl'
    with pytest.raises(ValueError, match="'all'"):
        PseudoLabelCrossEntropy('all')
    with pytest.raises(ValueError, match="'all'"):
        weighted_pixel_loss(torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), 'all')
    with pytest.raises(ValueError, match='loss_weight.*-1'):
        PseudoLabelCrossEntropy(loss_weight=-1)


@pytest.mark.parametrize('norm', NORMS)
def test_class_weights_count_pixels(norm):
    """A class of weight 3 counts as if its pixels were there three times; a pixel without label as the mean class."""
    logits, target = case()
    label = target.label.clone()
    label[0, 0, 0], target.valid[0, 0, 0], target.weight[0, 0, 0] = 255, True, 0
    target = target_of(label, target.weight, target.valid)
    cw = [1., 3., 2., 2.]
    total, valid, kept = 0., 0., 0.
    full = F.interpolate(logits, (5, 5), mode='bilinear', align_corners=True)
    for n, r, c in target.valid.nonzero().tolist():
        y, w = label[n, r, c].item(), target.weight[n, r, c].item()
        count = 2. if y == 255 else cw[y]
        valid += count
        if w > 0:
            kept += count
            total = total - count * w * torch.log_softmax(full[n, :, r, c], 0)[y]
    expected = total / {'valid': valid, 'kept': kept, 'u2pl': kept**2 / valid}[norm]
    loss = PseudoLabelCrossEntropy(norm, class_weight=cw)(logits, target, True)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    nothing = target_of(label, torch.zeros_like(target.weight), torch.zeros_like(target.valid))
    zero = PseudoLabelCrossEntropy(norm, class_weight=cw)(logits, nothing, True)
    assert zero == 0 and zero.requires_grad


def test_class_weights_are_checked():
    logits, target = case()
    with pytest.raises(ValueError, match='unsup_loss.class_weight has 2 weights for 4 classes'):
        PseudoLabelCrossEntropy(class_weight=[1, 1])(logits, target, True)
    with pytest.raises(ValueError, match='positive numbers'):
        PseudoLabelCrossEntropy(class_weight=[1, -1])
