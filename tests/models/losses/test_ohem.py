import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_semi.models.losses import OHEMCrossEntropyLoss, ohem_mask

TOY = torch.tensor([.9, .2, .75, .95])
CSS_TOY = torch.tensor([.1, .3, .75, .9, .95])  # section 11 item 7 of the CSS specification


def logits_of(p):
    """Two classes, the true one (0) has probability p."""
    return torch.stack([torch.log(p), torch.log(1 - p)])[None, :, None, :]


def slow_mask(p, valid, thresh, min_kept):
    values = sorted(p[valid].tolist())
    if len(values) < min_kept:
        return valid.clone()
    limit = max(thresh, values[min_kept - 1]) if min_kept else thresh
    return torch.tensor([bool(v) and x <= limit for x, v in zip(p.flatten().tolist(), valid.flatten().tolist(),
                                                                 strict=True)]).reshape(p.shape)


@pytest.mark.parametrize('p, min_kept, kept, value', [
    (TOY, 2, [1, 2], 0.948560), (TOY, 1, [1], 1.609438), (TOY, 5, [0, 1, 2, 3], 0.513443),
    (CSS_TOY, 2, [0, 1], 1.753279), (CSS_TOY, 4, [0, 1, 2, 3], 0.974900), (CSS_TOY, 6, [0, 1, 2, 3, 4], 0.790179)])
@pytest.mark.parametrize('ignored', [0, 3])
def test_toy_numbers(p, min_kept, kept, value, ignored):
    p, label = F.pad(p, (0, ignored), value=.01), F.pad(torch.zeros_like(p).long(), (0, ignored), value=255)
    assert ohem_mask(p, label != 255, 0.7, min_kept).nonzero().flatten().tolist() == kept
    loss = OHEMCrossEntropyLoss(0.7, min_kept)(logits_of(p), label[None, None])
    assert loss.item() == pytest.approx(value, abs=1e-6)


def test_fewer_labeled_pixels_than_min_kept_but_enough_pixels():
    """Three of four pixels are labeled, min_kept 4: the rule counts labeled pixels only."""
    label = torch.tensor([[[0, 255, 0, 0]]])
    loss = OHEMCrossEntropyLoss(0.7, 4)(logits_of(TOY), label)
    assert loss.item() == pytest.approx(-(math.log(.9) + math.log(.75) + math.log(.95)) / 3, abs=1e-6)
    loss = OHEMCrossEntropyLoss(0.7, 3)(logits_of(TOY), label)
    assert loss.item() == pytest.approx(-(math.log(.9) + math.log(.75) + math.log(.95)) / 3, abs=1e-6)
    loss = OHEMCrossEntropyLoss(0.7, 2)(logits_of(TOY), label)
    assert loss.item() == pytest.approx(-(math.log(.9) + math.log(.75)) / 2, abs=1e-6)


@pytest.mark.parametrize('min_kept', [0, 1, 7, 30, 47, 48, 49, 60, 61])
def test_mask_equals_slow_rule(min_kept):
    generator = torch.Generator().manual_seed(min_kept)
    p = torch.rand(3, 4, 5, generator=generator)
    p[0, 0] = p[1, 1]  # ties
    valid = torch.rand(3, 4, 5, generator=generator) < 0.8
    for thresh in (0., 0.3, 0.7, 1.):
        assert torch.equal(ohem_mask(p, valid, thresh, min_kept), slow_mask(p, valid, thresh, min_kept))


@pytest.mark.parametrize('min_kept', [1, 10, 1000])
def test_loss_and_gradient_equal_slow_reference(min_kept):
    torch.manual_seed(0)
    logits = (3 * torch.randn(2, 5, 6, 7, dtype=torch.float64)).requires_grad_()
    label = torch.randint(0, 5, (2, 6, 7))
    label[torch.rand(2, 6, 7) < 0.3] = 255
    valid = label != 255
    p = logits.detach().softmax(1).gather(1, label.where(valid, torch.tensor(0))[:, None])[:, 0]
    mask = slow_mask(p, valid, 0.7, min_kept)
    expected = F.cross_entropy(logits.permute(0, 2, 3, 1)[mask], label[mask])
    loss = OHEMCrossEntropyLoss(0.7, min_kept, loss_weight=0.4)(logits, label, weight=None, ignore_index=255)
    assert loss.item() == pytest.approx(0.4 * expected.item(), rel=1e-10)
    torch.testing.assert_close(*torch.autograd.grad(loss, logits), *torch.autograd.grad(0.4 * expected, logits))


@pytest.mark.parametrize('min_kept', [1, 5, 10**6])
def test_everything_ignored_is_a_connected_zero(min_kept):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = OHEMCrossEntropyLoss(0.7, min_kept)(logits, torch.full((2, 4, 4), 255))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_nan_is_not_hidden():
    logits = torch.randn(1, 3, 4, 4)
    logits[0, 0, 0, 0] = float('nan')
    assert OHEMCrossEntropyLoss(0.7, 2)(logits, torch.zeros(1, 4, 4, dtype=torch.long)).isnan()


def test_built_from_a_head_config():
    loss = MODELS.build(dict(type='OHEMCrossEntropyLoss', thresh=0.6, min_kept=3, loss_weight=0.5))
    assert (loss.thresh, loss.min_kept, loss.loss_weight, loss.loss_name) == (0.6, 3, 0.5, 'loss_ohem')
    with pytest.raises(ValueError, match='thresh.*1.5'):
        OHEMCrossEntropyLoss(thresh=1.5)
    with pytest.raises(ValueError, match='min_kept.*-1'):
        OHEMCrossEntropyLoss(min_kept=-1)
