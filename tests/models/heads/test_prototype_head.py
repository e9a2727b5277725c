"""The worked example of the PCR specification, section 10, and the behavior at the edges."""
import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.heads.prototype_head import PrototypeHead, accumulate, ema_bank, prototype_scores

BANK = torch.tensor([[[2., 0.], [0., 1.]], [[3., 4.], [8., 6.]]])  # p00 p01 | p10 p11
PIXELS = torch.tensor([[10., 0.], [0., 5.], [3., 4.], [0., 2.], [1., 1.], [5., 0.], [4., 3.], [4., 3.], [1., 1.]])
LABEL = torch.tensor([0, 0, 1, 1, 255, 0, 1, 1, 0])
CONFIDENCE = torch.tensor([1., 1., 1., 1., 1., .90, .70, .80, .95])
IS_LABELED = torch.arange(9) < 5
KEEP = (LABEL != 255) & (CONFIDENCE >= 0.8)


def make_head(**kwargs):
    head = PrototypeHead(num_classes=2, channels=2, num_prototypes=2, **kwargs)
    head.set_bank(BANK, torch.tensor([True, True]))
    return head


def test_scores_and_assignment_of_the_specification():
    z, nearest = prototype_scores(PIXELS, BANK, torch.tensor([True, True]), 0.1)
    expected = torch.tensor([[10., 8.], [10., 8.], [8., 10.], [10., 8.], [7.071068, 9.899495], [10., 8.], [8., 10.],
                             [8., 10.], [7.071068, 9.899495]])
    torch.testing.assert_close(z, expected)
    own = nearest.gather(1, LABEL.clamp(max=1)[:, None]).squeeze(1)
    assert own[KEEP].tolist() == [0, 1, 0, 0, 0, 1, 0]  # the last is a tie: the first row wins
    small, _ = prototype_scores(PIXELS / 1000, BANK / 1000, torch.tensor([True, True]), 0.1)
    torch.testing.assert_close(small, expected)


def test_losses_of_the_specification():
    head = make_head()
    scores, _ = head(PIXELS)
    assert head.loss(scores, LABEL, KEEP & IS_LABELED).item() == pytest.approx(0.626928, abs=1e-6)
    assert head.loss(scores, LABEL, KEEP & ~IS_LABELED).item() == pytest.approx(1.046569, abs=1e-6)


@pytest.mark.parametrize('pixel,expected', [(0, (0., 0.0715218)), (3, (-2.642391, 0.))])
def test_gradient_of_the_specification_is_orthogonal_to_the_feature(pixel, expected):
    head = make_head()
    feature = PIXELS[pixel:pixel + 1].clone().requires_grad_()
    head.loss(head(feature)[0], LABEL[pixel:pixel + 1], torch.tensor([True])).backward()
    torch.testing.assert_close(feature.grad[0], torch.tensor(expected), atol=1e-6, rtol=1e-5)
    assert abs((feature.grad * feature).sum().item()) < 1e-5
    assert not head.bank.requires_grad and not list(head.parameters())


def test_update_of_the_specification():
    head = make_head()
    head.update(PIXELS, LABEL, head(PIXELS)[1], KEEP)
    torch.testing.assert_close(
        head.bank, torch.tensor([[[2.033333, 0.003333], [0., 1.04]], [[2.985, 3.99], [7.96, 5.97]]]), atol=1e-6,
        rtol=1e-5)


def test_two_ranks_of_the_specification():
    nearest = prototype_scores(PIXELS, BANK, torch.tensor([True, True]), 0.1)[1]

    def part(pixels, features=PIXELS):
        return accumulate(features[pixels], LABEL[pixels], nearest[pixels], KEEP[pixels], 2, 2)

    one, other = part(slice(5)), part(slice(5, 9))
    sums, counts = (a + b for a, b in zip(one, other, strict=True))
    torch.testing.assert_close(
        ema_bank(BANK, sums, counts, 0.99),
        torch.tensor([[[2.033333, 0.003333], [0., 1.04]], [[2.985, 3.99], [7.96, 5.97]]]), atol=1e-6, rtol=1e-5)
    unit = part(slice(9), F.normalize(PIXELS, dim=1))
    for name, wrong, expected in (
        ('average of the means', (ema_bank(BANK, *one, 0.99) + ema_bank(BANK, *other, 0.99)) / 2, (2.045, 0.0025)),
        ('labeled, then unlabeled', ema_bank(ema_bank(BANK, *one, 0.99), *other, 0.99), (2.0892, 0.005)),
        ('unit features and bank', ema_bank(F.normalize(BANK, dim=2), *unit, 0.99), (0.999024, 0.002357)),
    ):
        torch.testing.assert_close(wrong[0, 0], torch.tensor(expected), atol=1e-6, rtol=1e-5, msg=name)


def test_update_equals_a_loop_over_pixels():
    gen = torch.Generator().manual_seed(0)
    num_classes, k, d, m = 5, 3, 7, 400
    bank = torch.randn(num_classes, k, d, generator=gen)
    features = torch.randn(m, d, generator=gen)
    label = torch.randint(num_classes - 1, (m, ), generator=gen)  # the last class gets no pixel
    keep = torch.rand(m, generator=gen) < 0.6
    _, nearest = prototype_scores(features, bank, torch.ones(num_classes, dtype=torch.bool), 0.1)
    sums, counts = accumulate(features, label, nearest, keep, num_classes, k)
    got = ema_bank(bank, sums, counts, 0.9)

    expected = bank.clone()
    for c in range(num_classes):
        for j in range(k):
            mine = []
            for i in range(m):
                cosines = [F.cosine_similarity(features[i], bank[label[i], q], dim=0).item() for q in range(k)]
                if keep[i] and label[i] == c and max(range(k), key=cosines.__getitem__) == j:
                    mine.append(features[i])
            if mine:
                expected[c, j] = 0.9 * bank[c, j] + 0.1 * torch.stack(mine).mean(0)
    torch.testing.assert_close(got, expected)
    assert torch.equal(got[-1], bank[-1])


@pytest.mark.parametrize('pixels', [4, 1])
def test_a_class_without_prototypes_takes_no_part_and_is_born_from_its_first_pixels(pixels):
    head = PrototypeHead(num_classes=3, channels=2, num_prototypes=2)
    head.set_bank(torch.cat([BANK, torch.zeros(1, 2, 2)]), torch.tensor([True, False, False]))
    scores, nearest = head(PIXELS)
    assert torch.equal(scores[:, 1:], torch.full((9, 2), -10.))
    only_second = KEEP & (LABEL == 1)
    only_second[only_second.nonzero()[pixels:]] = False
    assert head.loss(scores, LABEL, only_second).item() == 0
    head.update(PIXELS, LABEL, nearest, only_second)
    mean = PIXELS[only_second].mean(0)
    torch.testing.assert_close(head.bank[1], torch.stack([mean, mean]))
    assert head.class_valid.tolist() == [True, True, False]
    torch.testing.assert_close(head.bank[0], BANK[0])


@pytest.mark.parametrize('keep', [torch.zeros(9, dtype=torch.bool), KEEP])
def test_nothing_kept_or_not_initialized_is_exactly_zero_with_a_graph(keep):
    head = make_head()
    if keep.any():
        head.initialized.fill_(False)
    before = head.bank.clone()
    features = PIXELS.clone().requires_grad_()
    scores, nearest = head(features)
    loss = head.loss(scores, LABEL, keep)
    loss.backward()
    assert loss.item() == 0 and torch.equal(features.grad, torch.zeros_like(features))
    head.update(features, LABEL, nearest, keep)
    assert torch.equal(head.bank, before)


def test_zero_and_non_finite_features():
    head = make_head()
    features = torch.tensor([[0., 0.], [float('nan'), 1.], [float('inf'), 0.], [4., 0.], [2., 0.]])
    label = torch.zeros(5, dtype=torch.long)
    scores, nearest = head(features)
    assert scores[0].tolist() == [0., 0.]
    log = head.update(features, label, nearest, torch.ones(5, dtype=torch.bool))
    assert log['monitor.not_finite'].item() == 2
    assert torch.isfinite(head.bank).all()
    torch.testing.assert_close(head.bank[0, 0], 0.99 * BANK[0, 0] + 0.01 * torch.tensor([2., 0.]))  # mean of 0, 4, 2


def test_float32_under_autocast():
    head = make_head()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores, nearest = head(PIXELS.bfloat16())
        head.update(PIXELS.bfloat16(), LABEL, nearest, KEEP)
    assert scores.dtype == torch.float32 and head.bank.dtype == torch.float32
    torch.testing.assert_close(head.bank[0, 0], torch.tensor([2.033333, 0.003333]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('name,value', [('num_prototypes', 0), ('temperature', 0.), ('momentum', 1.), ('momentum', -.1),
                                        ('grid_size', 0), ('loss_weight', -1.)])
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f'prototype_head.{name}.*{value}'):
        PrototypeHead(num_classes=2, channels=2, **{name: value})


@pytest.mark.parametrize('name,value', [('num_prototypes', 1), ('momentum', 0.), ('grid_size', 1), ('loss_weight', 0.)])
def test_limits_of_settings_are_legal(name, value):
    assert getattr(PrototypeHead(num_classes=2, channels=2, **{name: value}), name) == value


def test_bad_banks_are_refused_with_both_shapes():
    head = PrototypeHead(num_classes=2, channels=2, num_prototypes=2)
    with pytest.raises(ValueError, match=r'\(2, 2, 2\).*\(3, 2, 2\)'):
        head.set_bank(torch.zeros(3, 2, 2), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match='2 flags.*(1,)'):
        head.set_bank(torch.zeros(2, 2, 2), torch.ones(1, dtype=torch.bool))
    with pytest.raises(ValueError, match='1 values that are not finite'):
        head.set_bank(torch.tensor([[[1., 2.], [3., float('nan')]], [[0., 0.], [0., 0.]]]),
                      torch.ones(2, dtype=torch.bool))
    assert not head.initialized
