import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.labelers import MultiScaleLabeler, ThresholdLabeler

INNER = dict(type='ThresholdLabeler', threshold=0.6)


def network(images):
    """Logits that depend on place, scale and orientation."""
    n, _, h, w = images.shape
    ramp = torch.linspace(-1, 1, w).expand(n, 1, h, w)
    return torch.cat([images, ramp], dim=1) * 2


def predict_of(images, calls):
    def predict(size, flip):
        calls.append((size, flip))
        resized = F.interpolate(images, size, mode='bilinear', align_corners=False)
        return network(resized.flip(3)).flip(3) if flip else network(resized)
    return predict


def test_scale_one_is_the_inner_labeler_bit_for_bit():
    images, valid, calls = torch.randn(2, 3, 12, 16), torch.rand(2, 12, 16) < 0.8, []
    mine = MultiScaleLabeler(INNER, scales=(1.0, ))(network(images), valid, predict_of(images, calls))
    theirs = ThresholdLabeler(0.6)(network(images), valid)
    assert not calls
    for name in vars(mine):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


@pytest.mark.parametrize('flip', [False, True])
def test_equals_the_mean_of_probabilities(flip):
    images, valid, calls = torch.randn(2, 3, 12, 16), torch.rand(2, 12, 16) < 0.8, []
    target = MultiScaleLabeler(INNER, scales=(0.5, 1.0, 1.5), flip=flip)(network(images), valid,
                                                                       predict_of(images, calls))
    mean, count = 0, 0
    for size in ((6, 8), (12, 16), (18, 24)):
        resized = F.interpolate(images, size, mode='bilinear', align_corners=False)
        for one in [network(resized)] + [network(resized.flip(3)).flip(3)] * flip:
            mean = mean + F.interpolate(one.softmax(1), (12, 16), mode='bilinear', align_corners=False)
            count += 1
    confidence, label = (mean / count).max(1)
    torch.testing.assert_close(target.confidence, confidence)
    assert torch.equal(target.label, label)
    assert torch.equal(target.weight, ((confidence >= 0.6) & valid).float()) and 0 < target.weight.mean() < 1
    # Scale 1 is the prediction that is there already.
    assert ((12, 16), False) not in calls and len(calls) == count - 1


def test_the_share_that_scale_one_alone_would_keep():
    images, valid = torch.randn(2, 3, 12, 16), torch.rand(2, 12, 16) < 0.8
    alone = (network(images).softmax(1).amax(1) >= 0.6)[valid].float().mean()
    assert MultiScaleLabeler(INNER).monitors == {}
    for scales in ((1.0, ), (0.5, 1.5), (0.5, 1.0, 1.5)):
        labeler = MultiScaleLabeler(INNER, scales=scales)
        target = labeler(network(images), valid, predict_of(images, []))
        torch.testing.assert_close(labeler.monitors, {'monitor.kept_single': alone})
        assert (target.weight[valid].mean() == alone) == (scales == (1.0, ))
    labeler(network(images), torch.zeros_like(valid), predict_of(images, []))
    assert labeler.monitors['monitor.kept_single'] == 0


def test_sizes_are_multiples_of_the_divisor():
    images, valid, calls = torch.randn(1, 3, 28, 42), torch.ones(1, 28, 42, dtype=torch.bool), []
    MultiScaleLabeler(INNER, scales=(0.25, 0.8), divisor=14)(network(images), valid, predict_of(images, calls))
    assert [size for size, _ in calls] == [(14, 14), (28, 28)]


def test_the_ensemble_may_come_late_and_seldom():
    images, valid = torch.randn(2, 3, 12, 16), torch.rand(2, 12, 16) < 0.8
    every, some = MultiScaleLabeler(INNER), MultiScaleLabeler(INNER, every_n=3, warm_iters=4)
    both, alone = (labeler(network(images), valid, predict_of(images, [])) for labeler in (every, ThresholdLabeler(.6)))
    assert not torch.equal(both.confidence, alone.confidence)
    for iteration in range(10):
        calls = []
        target = some(network(images), valid, predict_of(images, calls), iteration)
        ensemble = iteration in (6, 9)
        assert len(calls) == 2 * ensemble, 'no forward is wasted'
        assert torch.equal(target.confidence, (both if ensemble else alone).confidence)
        assert some.monitors == every.monitors, 'the log has it all the time'


def test_bad_options():
    for options in (dict(every_n=0), dict(warm_iters=-1)):
        with pytest.raises(ValueError, match='every_n must be at least 1 and warm_iters at least 0, found every_n'):
            MultiScaleLabeler(INNER, **options)
    for options in (dict(scales=()), dict(scales=(0, 1)), dict(divisor=0)):
        with pytest.raises(ValueError, match='scales must be positive numbers and divisor at least 1'):
            MultiScaleLabeler(INNER, **options)


def test_batch_ratio_weighs_every_valid_pixel_alike():
    logits, valid = torch.randn(2, 3, 8, 8) * 2, torch.rand(2, 8, 8) < 0.7
    kept = ThresholdLabeler(0.7)(logits, valid).weight.sum() / valid.sum()
    target = ThresholdLabeler(0.7, reliability='batch_ratio')(logits, valid)
    assert 0 < kept < 1
    torch.testing.assert_close(target.weight, valid * kept)
    nothing = ThresholdLabeler(0.7, reliability='batch_ratio')(logits, torch.zeros_like(valid))
    assert not nothing.weight.any()
    with pytest.raises(ValueError, match="'pixel' or 'batch_ratio', found 'image'"):
        ThresholdLabeler(0.7, reliability='image')
