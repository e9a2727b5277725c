import pytest
import torch

from mmseg_semi.models.labelers import ThresholdLabeler


def test_equals_softmax_then_threshold():
    logits = torch.randn(2, 5, 4, 6) * 3
    valid = torch.rand(2, 4, 6) < 0.8
    target = ThresholdLabeler(0.7)(logits, valid)
    confidence, label = logits.softmax(1).max(1)
    torch.testing.assert_close(target.confidence, confidence)
    assert torch.equal(target.label, label)
    assert torch.equal(target.weight, ((confidence >= 0.7) & valid).float())
    assert 0 < target.weight.sum() < valid.sum()


def test_ends_of_the_range():
    logits, valid = torch.randn(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    assert ThresholdLabeler(0.)(logits, valid).weight.all()
    assert not ThresholdLabeler(1.)(logits, valid).weight.any()
    half = torch.zeros(1, 2, 1, 1)  # probability exactly 0.5: the threshold itself is kept
    assert ThresholdLabeler(0.5)(half, valid[:, :1, :1]).weight.item() == 1


def test_softmax_is_float32_whatever_comes_in():
    logits = (torch.randn(1, 3, 8, 8) * 5).bfloat16()
    target = ThresholdLabeler(0.5)(logits, torch.ones(1, 8, 8, dtype=torch.bool))
    torch.testing.assert_close(target.confidence, logits.float().softmax(1).amax(1))


@pytest.mark.parametrize('threshold', [-0.1, 1.5])
def test_bad_threshold_is_named(threshold):
    with pytest.raises(ValueError, match=f'labeler.threshold.*{threshold}'):
        ThresholdLabeler(threshold)
