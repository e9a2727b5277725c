import contextlib
import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.losses import prototype_contrast
from mmseg_semi.models.losses.prototype_contrast import NegativeSampler, anchor_pixels, class_pools, prototype_info_nce


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    return F.cosine_similarity(a, b, dim=-1)


def toy(pixels=60, classes=4, width=3, seed=0):
    """Clustered pixels; class 3 is absent, some pixels are invalid, class 2 has no hard ones."""
    generator = seeded(seed)
    label = torch.randint(classes - 1, (pixels, ), generator=generator)
    prototypes = torch.randn(classes, width, generator=generator)
    features = prototypes[label] + torch.randn(pixels, width, generator=generator)
    hard = (torch.rand(pixels, generator=generator) < 0.5) & (label != 2)
    label[::7] = 255
    return features.requires_grad_(), label, hard, prototypes


def class_probabilities(c, present, prototypes, tau):
    others = [j for j in present if j != c]
    return others, torch.stack([cosine(prototypes[c], prototypes[j]) / tau for j in others]).softmax(0)


def reference(features, label, hard, prototypes, num_anchors, num_negatives, tau):
    """The published procedure, class by class and anchor by anchor, written from the specification."""
    present = [c for c in range(len(prototypes)) if (label == c).any()]
    total = 0 * features.sum()
    for c in present:
        candidates = ((label == c) & hard).nonzero().flatten()
        if len(candidates) == 0:
            continue
        others, probability = class_probabilities(c, present, prototypes, tau)
        members = [(label == j).nonzero().flatten() for j in others]
        losses = []
        for _ in range(num_anchors):
            anchor = features[candidates[torch.randint(len(candidates), ())]]
            drawn = torch.multinomial(probability, num_negatives, replacement=True)
            pixel = torch.stack([members[j][torch.randint(len(members[j]), ())] for j in drawn.tolist()])
            scores = torch.cat([cosine(anchor, prototypes[c])[None], cosine(anchor, features[pixel].detach())]) / tau
            losses.append(-scores.log_softmax(0)[0])
        total = total + torch.stack(losses).mean() / len(present)
    return total


def expectation_of_two_negatives(features, label, hard, prototypes, tau):
    """The expected loss over all draws of two negatives, by enumeration."""
    present = [c for c in range(len(prototypes)) if (label == c).any()]
    total = 0
    for c in present:
        candidates = ((label == c) & hard).nonzero().flatten()
        if len(candidates) == 0:
            continue
        weight = torch.zeros(len(features))
        for j, p in zip(*class_probabilities(c, present, prototypes, tau), strict=True):
            weight[label == j] = p / (label == j).sum()
        for i in candidates:
            score = cosine(features[i], features.detach()) / tau
            positive = cosine(features[i], prototypes[c]) / tau
            pair = -torch.log(positive.exp() / (positive.exp() + score.exp()[:, None] + score.exp()[None, :]))
            total = total + weight @ pair @ weight / len(candidates) / len(present)
    return total


def value_and_grad(loss, features):
    return loss.detach(), torch.autograd.grad(loss, features)[0]


def test_law_of_the_draws_equals_the_reference():
    # Q anchors are Q independent draws, so that many anchors stand for many calls.
    case = toy(pixels=24)
    expected, expected_grad = value_and_grad(reference(*case, 800, 8, 0.5), case[0])
    loss, grad = value_and_grad(prototype_info_nce(*case, 20000, 8, 0.5, generator=seeded()), case[0])
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0)
    assert (grad - expected_grad).norm() < 0.15 * expected_grad.norm()  # 800 anchors on few candidates spread by 0.07


def test_expected_loss_and_gradient_are_those_of_the_enumeration():
    case = toy(pixels=40)
    expected, expected_grad = value_and_grad(expectation_of_two_negatives(*case, 0.5), case[0])
    loss, grad = value_and_grad(prototype_info_nce(*case, 100000, 2, 0.5, generator=seeded()), case[0])
    torch.testing.assert_close(loss, expected, rtol=0.003, atol=0)
    assert (grad - expected_grad).norm() < 0.01 * expected_grad.norm()


def test_shared_negatives_have_the_same_expectation():
    case = toy(pixels=40)
    expected, expected_grad = value_and_grad(expectation_of_two_negatives(*case, 0.5), case[0])
    generator, calls = seeded(), 4000  # each draws three sets: 1,000 leave the gradient 1.5 % off
    results = [value_and_grad(prototype_info_nce(*case, 256, 2, 0.5, True, generator), case[0]) for _ in range(calls)]
    torch.testing.assert_close(sum(r[0] for r in results) / calls, expected, rtol=0.01, atol=0)
    assert (sum(r[1] for r in results) / calls - expected_grad).norm() < 0.01 * expected_grad.norm()


def test_anchors_of_a_call_share_negatives_only_if_asked():
    # One anchor candidate, one positive: the losses of its draws differ only by the negatives.
    features, label = torch.randn(50, 3).requires_grad_(), torch.tensor([0] + [1] * 49)
    hard = label == 0
    prototypes = torch.randn(2, 3)
    spread = {}
    for share in (False, True):
        losses = [prototype_info_nce(features, label, hard, prototypes, 100, 4, 0.5, share, seeded(s)).detach()
                  for s in range(100)]
        spread[share] = torch.stack(losses).std()
    assert 7 < spread[True] / spread[False] < 14  # sqrt(100)


@pytest.mark.parametrize('share', [False, True])
def test_gradient_of_the_drawn_loss(share):
    anchors = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    negatives, prototypes = torch.randn(30, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    label = torch.tensor([0] * 5 + [1] * 15 + [2] * 15)

    def loss(x):
        return prototype_info_nce(torch.cat([x, negatives]), label, label == 0, prototypes, 6, 7, 0.5, share, seeded())

    assert loss(anchors).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, anchors)


def test_probabilities_of_negatives():
    """Specification section 11 item 5."""
    prototypes = torch.tensor([[1., 0], [0.8, 0.6], [0, 1], [-0.5, 0.75**0.5], [1, 0]])  # class 4 has no pixel
    label = torch.tensor([0] * 3 + [1] * 10 + [2] + [3] * 100 + [255] * 20)
    label = label[torch.randperm(len(label), generator=seeded())]
    sampler = NegativeSampler(class_pools(label, torch.ones_like(label, dtype=torch.bool), 5), prototypes, 0.5)
    torch.testing.assert_close(sampler.probability[0].float(), torch.tensor([0, 0.7836, 0.1582, 0.0582, 0]), atol=5e-5,
                               rtol=0)
    assert (512 * sampler.probability[0, 1:4]).round(decimals=1).tolist() == [401.2, 81.0, 29.8]
    draws = 400000
    u = torch.rand(2, draws // 2, generator=seeded(), dtype=torch.float64)
    frequency = sampler(u, torch.tensor([0, 0])).flatten().bincount(minlength=len(label)) / draws
    expected = torch.zeros(len(label))
    for c, p in ((1, 0.07836), (2, 0.1582), (3, 0.000582)):
        expected[label == c] = p
    assert ((frequency - expected).abs() < 5 * (expected / draws).sqrt() + 1e-9).all()  # five standard deviations


def test_ends_of_the_unit_interval():
    _, label, hard, prototypes = toy()
    sampler = NegativeSampler(class_pools(label, hard, 4), prototypes, 0.5)
    pixels = sampler(torch.tensor([[0., 1 - 2**-53]] * 2, dtype=torch.float64), torch.tensor([0, 1]))
    assert label[pixels].tolist() == [[1, 2], [0, 2]]


def test_anchors_are_hard_pixels_drawn_evenly():
    _, label, hard, _ = toy(pixels=2000)
    pools = class_pools(label, hard, 4)
    assert pools.count.tolist() == [(label == c).sum() for c in range(4)]
    assert pools.hard.tolist() == [((label == c) & hard).sum() for c in range(4)]
    draws = 200000
    pixels = anchor_pixels(torch.rand(4, draws, generator=seeded(), dtype=torch.float64), pools)
    assert (pixels[2:] == pixels[2, 0]).all()  # no hard pixel; absent
    for c in (0, 1):
        candidates = (label == c) & hard
        frequency = pixels[c].bincount(minlength=len(label)) / draws
        expected = candidates / candidates.sum()
        assert ((frequency - expected).abs() <= 5 * (expected / draws).sqrt()).all()


def test_loss_of_one_anchor():
    """Section 11 item 6: positive 0.6, negatives 0.2 and -0.4, whichever of them are drawn."""
    angles = torch.tensor([0, 0.2, -0.4]).clamp(-1, 1).acos()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    features[0] = torch.tensor([1., 0])
    prototypes = torch.tensor([[0.6, 0.8], [0., -1]])
    label = torch.tensor([0, 1, 1])
    losses = {round(float(2 * prototype_info_nce(features, label, label == 0, prototypes, 1, 2, 0.5,
                                                 generator=seeded(s))), 5) for s in range(30)}
    expected = {round(math.log(1 + sum(math.exp((n - 0.6) / 0.5) for n in pair)), 5)
                for pair in ((0.2, 0.2), (0.2, -0.4), (-0.4, -0.4))}
    assert losses == expected and 0.46037 in losses


def test_divisor_is_the_number_of_present_classes():
    """Section 11 item 6: l = 0.9, 0.6 and a class without hard anchors -> 1.5 / 3."""
    cosines = [-math.log(math.exp(loss) - 1) for loss in (0.9, 0.6)]  # one orthogonal negative, tau = 1
    prototypes = torch.zeros(5, 4)
    for c, value in enumerate(cosines):
        prototypes[c, c], prototypes[c, 3] = value, math.sqrt(1 - value**2)
    prototypes[2] = 1
    features, label = torch.eye(4)[:3].repeat(2, 1), torch.arange(3).repeat(2)
    loss = prototype_info_nce(features, label, label < 2, prototypes, 5, 1, 1.0)
    assert float(loss) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize('share', [False, True])
def test_bounds(share):
    """Specification section 4 step 10, Q = 256, N = 512, tau = 0.5."""
    x, y = torch.tensor([1., 0]), torch.tensor([0., 1])
    label = torch.tensor([0, 1] * 4)
    hard = torch.ones(8, dtype=torch.bool)
    for of_class, prototypes, expected in (
        ((x, -x), (x, -x), 2.340), ((x, x), (-x, -x), 10.238), ((x, y), (x, y), 4.253), ((x, x), (x, x), 6.240276)):
        features = 3 * torch.stack(of_class).repeat(4, 1)
        loss = prototype_info_nce(features, label, hard, torch.stack(prototypes), share_negatives=share)
        assert float(loss) == pytest.approx(expected, abs=5e-7 if expected == 6.240276 else 5e-4)
    random = prototype_info_nce(torch.randn(8, 2), label, hard, torch.randn(2, 2), share_negatives=share)
    assert 2.340 < random < 10.238


@pytest.mark.parametrize('share', [False, True])
def test_gradient_only_on_anchors(share):
    features, label, hard, prototypes = toy()
    prototypes.requires_grad_()
    loss = prototype_info_nce(features, label, hard, prototypes, 400, 8, 0.5, share, seeded())
    loss.backward()
    anchors = hard & (label != 255)
    assert (features.grad[~anchors] == 0).all() and (features.grad[anchors].abs().sum(1) > 0).all()
    assert prototypes.grad is None


@pytest.mark.parametrize('share', [False, True])
@pytest.mark.parametrize('case', ['one class', 'no hard anchor', 'all ignored', 'last class only'])
def test_nothing_to_contrast(case, share):
    features, label, hard, prototypes = toy()
    features.data.fill_(math.nan)  # also of the pixel that stands in for no anchor
    valid = label != 255
    if case == 'one class':
        label = torch.where(valid, 1, 255)
    if case == 'last class only':
        label = torch.where(valid, 3, 255)
    if case == 'no hard anchor':
        hard = torch.zeros_like(hard)
    if case == 'all ignored':
        label = torch.full_like(label, 255)
    loss = prototype_info_nce(features, label, hard, prototypes, 5, 6, 0.5, share)
    loss.backward()
    assert loss == 0 and (features.grad == 0).all()


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_pixels_that_are_not_valid_do_not_leak(value):
    features, label, hard, prototypes = toy()
    prototypes[3] = value  # absent
    clean = value_and_grad(prototype_info_nce(features, label, hard, prototypes, 9, 6, generator=seeded()), features)
    with torch.no_grad():
        features[label == 255] = value
    dirty = value_and_grad(prototype_info_nce(features, label, hard, prototypes, 9, 6, generator=seeded()), features)
    assert torch.isfinite(clean[0]) and torch.equal(clean[0], dirty[0]) and torch.equal(clean[1], dirty[1])
    with torch.no_grad():
        features[label == 1] = value
    assert prototype_info_nce(features, label, hard, prototypes, 9, 6).isnan()  # the training loop has to see it


def test_two_classes_only():
    """The negatives of each are the pixels of the other, whatever the prototypes."""
    features, label, hard, prototypes = toy()
    label = torch.where(label == 2, 255, label)
    expected = reference(features, label, hard, prototypes, 300, 8, 0.5)
    torch.testing.assert_close(prototype_info_nce(features, label, hard, prototypes, 9000, 8, 0.5, generator=seeded()),
                               expected, rtol=0.02, atol=0)


@pytest.mark.parametrize('share', [False, True])
@pytest.mark.parametrize('blocks', [1, 7 * 8 * 3 * 4, 2**30])
def test_size_of_blocks_does_not_matter(monkeypatch, blocks, share):
    case = toy()
    expected = value_and_grad(prototype_info_nce(*case, 9, 8, 0.5, share, seeded()), case[0])
    monkeypatch.setattr(prototype_contrast, 'CPU_BLOCK', blocks)
    torch.testing.assert_close(
        value_and_grad(prototype_info_nce(*case, 9, 8, 0.5, share, seeded()), case[0]), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('region', [1, 50, 2**30])
def test_regions_equal_blocks(monkeypatch, dtype, region):
    """The two orders in which a CPU reads: the same draws, the same sums, in no anchor's row a neighbor's pair."""
    features, label, hard, prototypes = toy(pixels=70)
    features = features.detach().to(dtype).requires_grad_()
    ways = []
    for draws_per_pixel, block in ((0, region), (1000, 2**22)):
        monkeypatch.setattr(prototype_contrast, 'DRAWS_PER_PIXEL', draws_per_pixel)
        monkeypatch.setattr(prototype_contrast, 'CPU_BLOCK', block)
        monkeypatch.setattr(prototype_contrast, 'DRAWN', 30)
        ways.append(value_and_grad(
            prototype_info_nce(features, label, hard, prototypes.to(dtype), 9, 8, 0.05, generator=seeded()), features))
    torch.testing.assert_close(*ways)


def test_no_warning(recwarn):
    """Of torch's sparse tensors, which it would tell once a process."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        prototype_info_nce(*toy(), 9, 8)
    finally:
        torch.set_warn_always(before)
    assert not recwarn.list


def test_generator_decides():
    case = toy()
    losses = [prototype_info_nce(*case, 9, 8, generator=seeded(seed)) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_float32_under_autocast_and_with_half_features():
    features, label, hard, prototypes = toy()
    features = features.detach().bfloat16()
    expected = prototype_info_nce(features.float(), label, hard, prototypes, 9, 8, generator=seeded())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = prototype_info_nce(features.requires_grad_(), label, hard, prototypes, 9, 8, generator=seeded())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    loss.backward()
    assert features.grad.dtype == torch.bfloat16 and torch.isfinite(features.grad).all()


@pytest.mark.parametrize('share', [False, True])
def test_values_are_never_read(monkeypatch, share):
    """Tensors of the meta device have no values: ``.item()``, ``nonzero`` and boolean masks fail on them."""
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: contextlib.nullcontext())  # knows no meta device
    features = torch.empty(60, 3, device='meta', requires_grad=True)
    label = torch.empty(60, dtype=torch.long, device='meta')
    prototypes = torch.empty(4, 3, device='meta')
    prototype_info_nce(features, label, label.bool(), prototypes, 9, 8, 0.5, share, seeded()).backward()
    assert features.grad.shape == features.shape
