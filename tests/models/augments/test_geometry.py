import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.augments import RandomMirror, RandomScaleCrop
from mmseg_semi.models.augments.geometry import reflected_index
from mmseg_semi.structures import Target, View


def view_of(size=3, height=24, width=20):
    torch.manual_seed(0)
    label = torch.randint(5, (size, height, width))
    valid = torch.rand(size, height, width) < 0.9
    return View(torch.rand(size, 3, height, width),
                Target(label, (torch.rand(size, height, width) < 0.5) * valid.float(),
                       torch.rand(size, height, width), valid))


def maps(view):
    return [view.images, *vars(view.target).values()]


@pytest.mark.parametrize('size, target', [(5, 5), (5, 3), (5, 9), (5, 23), (2, 7), (1, 4)])
def test_reflection_equals_numpy(size, target):
    index = reflected_index(size, target, torch.device('cpu')).numpy()
    expected = np.pad(np.arange(size), (0, max(target - size, 0)), mode='reflect')[:target]
    assert (index == expected).all()


def test_a_smaller_image_lies_top_left_and_the_rest_is_padding():
    """Worked example 10 of the CSS specification: r = 0.6 on a crop of 64."""
    view = view_of(1, 64, 64)
    out = RandomScaleCrop().apply(view, dict(size=[(int(64 * 0.6), int(64 * 0.6))], offset=[(0, 0)]))
    target = out.target
    assert (target.label[0, 38:] == 255).all() and (target.label[0, :, 38:] == 255).all()
    for padded in (target.confidence, target.weight, target.valid):
        assert not padded[0, 38:].any() and not padded[0, :, 38:].any()
    assert (target.label[0, :38, :38] < 5).all() and target.valid[0, :38, :38].float().mean() > 0.8
    assert torch.equal(out.images[0, :, 38:64, :38], out.images[0, :, 11:37, :38].flip(1))  # reflected
    assert out.images.shape == view.images.shape


@pytest.mark.parametrize('size, offset', [((24, 20), (0, 0)), ((13, 11), (0, 0)), ((36, 29), (7, 4)),
                                          ((7, 30), (0, 9))])
def test_equals_resize_pad_crop(size, offset):
    view = view_of(2)
    out = RandomScaleCrop().apply(view, dict(size=[size, (24, 20)], offset=[offset, (0, 0)]))
    for name, before, after in zip(('images', 'label', 'weight', 'confidence', 'valid'), maps(view), maps(out),
                                   strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        torch.testing.assert_close(after[1], before[1], msg=f'{name}: scale 1 changes nothing')
        if name == 'images':
            scaled = F.interpolate(before[:1], size, mode='bilinear', antialias=True)[0].numpy()
        else:
            scaled = F.interpolate(before[:1, None].double(), size, mode='nearest-exact')[0].numpy()
        pad = [(0, 0)] + [(0, max(side - new, 0)) for side, new in zip((24, 20), size, strict=True)]
        fill = dict(mode='reflect') if name == 'images' else dict(constant_values=255 if name == 'label' else 0)
        expected = np.pad(scaled, pad, **fill)[:, offset[0]:offset[0] + 24, offset[1]:offset[1] + 20]
        np.testing.assert_allclose(after[0].double().numpy().reshape(expected.shape), expected, atol=1e-6)


def test_draws():
    generator = torch.Generator().manual_seed(0)
    params = RandomScaleCrop((0.5, 1.5)).draw(view_of(200, 24, 20), generator)
    heights = np.array([size[0] for size in params['size']])
    assert heights.min() == 12 and heights.max() == 35 and len(set(heights)) == 24
    for (height, width), (top, left) in zip(params['size'], params['offset'], strict=True):
        assert 0 <= top <= max(height - 24, 0) and 0 <= left <= max(width - 20, 0)
        assert abs(width / 20 - height / 24) < 1 / 20
    assert any(top for _, (top, _) in zip(params['size'], params['offset'], strict=True))
    with pytest.raises(ValueError, match=r'found \(0, 1\)'):
        RandomScaleCrop((0, 1))


@pytest.mark.parametrize('ratio_range, share', [((0.5, 1.5), 0.208), ((0.5, 2.0), 0.139)])
def test_share_of_padding(ratio_range, share):
    """Section 6 of the CSS specification: VOC and Cityscapes."""
    view = View(torch.zeros(1).expand(20000, 3, 512, 512), None)
    params = RandomScaleCrop(ratio_range).draw(view, torch.Generator().manual_seed(0))
    content = np.minimum(params['size'], 512).prod(axis=1) / 512**2
    assert 1 - content.mean() == pytest.approx(share, abs=0.005)


def test_mirror():
    view = view_of(64)
    before = [m.clone() for m in maps(view)]
    params = RandomMirror().draw(view, torch.Generator().manual_seed(0))
    out = RandomMirror().apply(view, params)
    assert 16 < params['gate'].sum() < 48
    for old, given, new in zip(before, maps(view), maps(out), strict=True):
        assert torch.equal(old, given)
        for i, flipped in enumerate(params['gate']):
            assert torch.equal(new[i], old[i].flip(-1) if flipped else old[i])
    with pytest.raises(ValueError, match='prob'):
        RandomMirror(1.5)
