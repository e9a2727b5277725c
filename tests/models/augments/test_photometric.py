import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from mmseg_semi.models.augments import ColorJitter, GaussianBlur, RandomGrayscale
from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import Target, View

TORCHVISION = dict(brightness=tv.adjust_brightness, contrast=tv.adjust_contrast, saturation=tv.adjust_saturation,
                   hue=tv.adjust_hue)
AUGMENTS = [dict(type='ColorJitter', prob=0.6), dict(type='RandomGrayscale', prob=0.6),
            dict(type='GaussianBlur', sigma=(0.5, 2.0), prob=0.6)]  # a sigma near 0.1 would change nothing


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def view_of(size=4, channels=3, side=20, seed=0):
    images = torch.rand(size, channels, side, side + 3, generator=seeded(seed))
    label = torch.randint(0, 5, (size, side, side + 3), generator=seeded(seed))
    return View(images, Target(label, torch.ones(label.shape), torch.ones(label.shape), label < 4))


@pytest.mark.parametrize('config', AUGMENTS)
def test_replay_gate_range_and_target(config):
    augment = BATCH_AUGMENTS.build(config)
    view = view_of(size=6)
    before = view.images.clone()
    state = torch.get_rng_state()
    changed = 0
    for seed in range(20):
        params = augment.draw(view, seeded(seed))
        out = augment(view, seeded(seed))
        assert out.target is view.target
        assert torch.equal(out.images, augment.apply(view, params).images)
        assert out.images.dtype == torch.float32 and out.images.min() >= 0 and out.images.max() <= 1
        for i, gate in enumerate(params['gate'].tolist()):
            assert torch.equal(out.images[i], before[i]) != gate
            changed += gate
    assert 0.45 < changed / 120 < 0.75
    assert torch.equal(view.images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('name', list(TORCHVISION))
def test_one_jitter_equals_torchvision(name):
    ranges = dict(brightness=0., contrast=0., saturation=0., hue=0.)
    ranges[name] = 0.5 if name == 'hue' else 0.9
    augment = ColorJitter(**ranges, prob=1.)
    view = view_of(size=5)
    params = augment.draw(view, seeded(3))
    assert params['order'] == [name]
    assert params[name].unique().numel() == 5
    out = augment.apply(view, params).images
    for image, factor, result in zip(view.images, params[name].tolist(), out, strict=True):
        # torchvision rounds its luma weights to four digits.
        torch.testing.assert_close(result, TORCHVISION[name](image, factor), rtol=0, atol=3e-4)


def test_all_jitters_in_the_drawn_order():
    augment = ColorJitter(0.5, 0.5, 0.5, 0.25, prob=1.)
    view = view_of(size=3)
    orders = set()
    for seed in range(15):
        params = augment.draw(view, seeded(seed))
        orders.add(tuple(params['order']))
        out = augment.apply(view, params).images
        for i in range(3):
            image = view.images[i]
            for name in params['order']:
                image = TORCHVISION[name](image, params[name][i].item())
            torch.testing.assert_close(out[i], image, rtol=0, atol=2e-3)
    assert len(orders) > 8


def test_ranges():
    augment = ColorJitter(0.4, 1.5, 0.3, 0.1)
    draws = [augment.draw(view_of(size=50), seeded(s)) for s in range(20)]
    for name, low, high in (('brightness', .6, 1.4), ('contrast', 0., 2.5), ('saturation', .7, 1.3), ('hue', -.1, .1)):
        values = torch.cat([d[name] for d in draws])
        span = high - low
        assert low <= values.min() < low + 0.02 * span and high - 0.02 * span < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.05 * span)
    values = torch.cat([GaussianBlur((0.5, 1.5)).draw(view_of(size=50), seeded(s))['sigma'] for s in range(20)])
    assert 0.5 <= values.min() < 0.52 and 1.48 < values.max() <= 1.5


def test_gray_equals_torchvision():
    view = view_of()
    out = RandomGrayscale(prob=1.)(view, seeded(0)).images
    assert out.shape == view.images.shape
    torch.testing.assert_close(out, tv.rgb_to_grayscale(view.images, 3), rtol=0, atol=2e-4)


def test_blur_equals_torchvision():
    view = view_of(channels=4)
    augment = GaussianBlur((0.1, 2.0), prob=1.)
    params = augment.draw(view, seeded(0))
    out = augment.apply(view, params).images
    assert params['sigma'].unique().numel() == 4
    for image, sigma, result in zip(view.images, params['sigma'].tolist(), out, strict=True):
        torch.testing.assert_close(result, tv.gaussian_blur(image, [13, 13], [sigma, sigma]), rtol=0, atol=1e-5)


@pytest.mark.parametrize('channels', [1, 4])
def test_images_that_are_not_rgb(channels):
    view = view_of(channels=channels)
    out = ColorJitter(0.5, 0.5, 0., 0., prob=1.)(view, seeded(0)).images
    # One image at a time gives the same: no statistic is shared in the batch.
    augment = ColorJitter(0.5, 0.5, 0., 0., prob=1.)
    params = augment.draw(view, seeded(0))
    for i in range(4):
        one = {k: v if k == 'order' else v[i:i + 1] for k, v in params.items()}
        single = augment.apply(View(view.images[i:i + 1], view.target), one).images
        torch.testing.assert_close(out[i:i + 1], single)
    # What has no meaning without RGB is left out, and the rest is drawn as if it were there.
    for augment in (ColorJitter(0, 0, 0.5, 0, 1.), ColorJitter(0, 0, 0, 0.1, 1.), RandomGrayscale(1.)):
        with pytest.warns(UserWarning, match=f'left out: it needs RGB, and these images have {channels} channels'):
            assert torch.equal(augment(view, seeded(0)).images, view.images)
    with pytest.warns(UserWarning, match='hue of ColorJitter'):
        colored = ColorJitter(0.5, 0.5, 0.5, 0.1, prob=1.)
        params = colored.draw(view, seeded(0))
        gray_only = {**params, 'order': [name for name in params['order'] if name in ('brightness', 'contrast')]}
        assert torch.equal(colored.apply(view, params).images, colored.apply(view, gray_only).images)


def test_nothing_to_do_is_free():
    view = view_of()
    assert torch.equal(ColorJitter(0, 0, 0, 0, prob=1.)(view, seeded(0)).images, view.images)


@pytest.mark.parametrize('build, text', [
    (lambda: ColorJitter(brightness=-1), 'brightness.*-1'), (lambda: ColorJitter(hue=0.6), 'hue.*0.5, got 0.6'),
    (lambda: ColorJitter(prob=2), 'prob.*2'), (lambda: RandomGrayscale(-1), 'prob.*-1'),
    (lambda: GaussianBlur((2., 1.)), r'sigma.*\(2.0, 1.0\)'), (lambda: GaussianBlur((0., 1.)), 'sigma'),
    (lambda: GaussianBlur()(view_of(side=6), seeded(0)), r'6 pixels.*\[6, 9\]')])
def test_settings(build, text):
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize('name, published', [
    ('ColorJitter', dict(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=0.8)),
    ('RandomGrayscale', dict(prob=0.2)), ('GaussianBlur', dict(sigma=(0.1, 2.0), prob=0.5))])
def test_defaults_are_the_published_values(name, published):
    plain, written = (BATCH_AUGMENTS.build(dict(type=name, **options)) for options in ({}, published))
    assert vars(plain) == vars(written)
