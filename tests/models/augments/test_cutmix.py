import warnings
from collections import Counter

import pytest
import torch

from mmseg_semi.models.augments import CutMix, cutmix_box
from mmseg_semi.models.augments.base import _warn_single_image, draw_partner
from mmseg_semi.models.augments.cutmix import box_mask
from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import Target, View


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def coded_view(size, height, width):
    """Every map says, at every pixel, which image and which place it comes from."""
    code = torch.arange(size * height * width).reshape(size, height, width)
    images = torch.stack([code, code + 0.25, code + 0.5], 1).double()
    target = Target(label=code, weight=code.double() + 0.125, confidence=code.double() + 0.0625,
                    valid=torch.rand(size, height, width, generator=seeded(9)) < 0.7)
    return View(images, target)


def maps(view):
    return [view.images, view.target.label, view.target.weight, view.target.confidence, view.target.valid]


def assert_moved_together(view, mixed, expected_source):
    """``expected_source`` [N, H, W]: image each pixel must come from; the place must not change."""
    size, _, height, width = view.images.shape
    code = (expected_source * height * width) + torch.arange(height * width).reshape(height, width)
    assert torch.equal(mixed.target.label, code)
    assert torch.equal(mixed.images, torch.stack([code, code + 0.25, code + 0.5], 1).double())
    assert torch.equal(mixed.target.weight, code + 0.125)
    assert torch.equal(mixed.target.confidence, code + 0.0625)
    assert torch.equal(mixed.target.valid, view.target.valid.flatten()[code])


def test_half_width_toy_numbers():
    generator = seeded(0)
    boxes = Counter(cutmix_box(4, 4, generator, 'half_width') for _ in range(4000))
    assert set(boxes) == {(top, left, 3, 3) for top in (0, 1) for left in (0, 1)}
    assert all(850 < count < 1150 for count in boxes.values())
    assert box_mask(torch.tensor([next(iter(boxes))]), 4, 4).sum() == 9


def test_half_width_law():
    generator = seeded(1)
    boxes = torch.tensor([cutmix_box(513, 513, generator, 'half_width') for _ in range(20000)]).double()
    top, left, h, w = boxes.unbind(1)
    assert (w.min(), w.max()) == (257, 512)
    assert (h.min(), h.max()) == (257, 512)
    assert torch.equal(h, torch.round(513 * 513 / 2 / w))
    assert w.mean().item() == pytest.approx(384.5, abs=2)
    assert w.std().item() == pytest.approx(256 / 12**0.5, rel=0.02)
    for corner, room in ((top, 513 - h), (left, 513 - w)):
        assert corner.min() == 0 and (corner <= room).all() and (corner == room).any()
        # Uniform on 0..room: (corner + 1/2) / (room + 1) has mean 1/2 and, per cell, equal counts.
        share = (corner + 0.5) / (room + 1)
        assert share.mean().item() == pytest.approx(0.5, abs=0.01)
        wide = share[room > 100]
        assert torch.histc(wide, 4, 0, 1).div(len(wide)).tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_half_width_at_512():
    """Worked example 10 of the CSS specification, for every width."""
    generator = seeded(4)
    boxes = torch.tensor([cutmix_box(512, 512, generator, 'half_width') for _ in range(5000)])
    assert boxes[:, 3].unique().tolist() == list(range(257, 512))
    kept = 1 - boxes[:, 2] * boxes[:, 3] / 512**2
    assert (kept - 0.5).abs().max() < 0.001


def test_half_width_of_other_shapes():
    generator = seeded(2)
    for height, width in ((3, 3), (5, 64), (64, 5), (1, 7), (96, 200)):
        for _ in range(300):
            top, left, h, w = cutmix_box(height, width, generator, 'half_width')
            assert width // 2 + 1 <= w <= width - 1 and h == round(height * width / 2 / w) >= 1
            assert 0 <= top <= height - h and 0 <= left <= width - w


def test_area_ratio_law():
    generator = seeded(3)
    boxes = torch.tensor([cutmix_box(321, 321, generator, 'area_ratio') for _ in range(20000)]).double()
    top, left, h, w = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 321).all() and (left + w <= 321).all()
    assert top.min() == left.min() == 0 and (top + h).max() == (left + w).max() == 321
    area = (h + 0.5) * (w + 0.5) / 321**2
    assert area.min() > 0.018 and area.max() < 0.405
    # Measured on the original: mean 0.21 of the image (uniform area, not redrawn), median h/w about 1.5.
    assert area.mean().item() == pytest.approx(0.21, abs=0.003)
    assert torch.histc(area, 4, 0.02, 0.4).div(len(area)).tolist() == pytest.approx([0.25] * 4, abs=0.02)
    ratio = (h + 0.5) / (w + 0.5)
    assert ratio.min() > 0.28 and ratio.max() < 3.5
    assert ratio.median().item() == pytest.approx(1.5, abs=0.15)


def test_impossible_boxes():
    with pytest.raises(ValueError, match='8x2'):
        cutmix_box(8, 2, seeded(0), 'half_width')
    with pytest.raises(ValueError, match='1000x3.*square'):
        for _ in range(20):
            cutmix_box(1000, 3, seeded(0), 'area_ratio')
    with pytest.raises(ValueError, match="'beta'"):
        cutmix_box(8, 8, seeded(0), 'beta')
    with pytest.raises(ValueError, match='8x2'):
        CutMix(prob=0.)(coded_view(2, 8, 2), seeded(0))


@pytest.mark.parametrize('box', ['half_width', 'area_ratio'])
@pytest.mark.parametrize('partner', ['next', 'flip', 'shuffle'])
@pytest.mark.parametrize('per', ['batch', 'image'])
def test_everything_moves_together(box, partner, per):
    view = coded_view(5, 9, 12)
    before = [m.clone() for m in maps(view)]
    augment = BATCH_AUGMENTS.build(dict(type='CutMix', box=box, partner=partner, per=per, prob=0.7))
    changed = 0
    for seed in range(12):
        params = augment.draw(view, seeded(seed))
        mixed = augment(view, seeded(seed))
        source = torch.arange(5)[:, None, None].repeat(1, 9, 12)
        for i, (top, left, h, w) in enumerate(params['box'].tolist()):
            source[i, top:top + h, left:left + w] = params['partner'][i]
        assert_moved_together(view, mixed, source)
        for a, b, original in zip(maps(mixed), maps(augment(view, seeded(seed))), before, strict=True):
            assert torch.equal(a, b) and a.dtype == original.dtype
        changed += not torch.equal(mixed.images, view.images)
    assert changed >= 5
    for now, original in zip(maps(view), before, strict=True):
        assert torch.equal(now, original)


def test_gate_per_batch_and_per_image():
    view = coded_view(4, 8, 8)
    counts = {}
    for per in ('batch', 'image'):
        augment = CutMix(prob=0.5, per=per)
        mixed = [(augment.draw(view, seeded(s))['box'][:, 2] > 0).sum().item() for s in range(400)]
        counts[per] = Counter(mixed)
        assert sum(mixed) / 1600 == pytest.approx(0.5, abs=0.07)
    assert set(counts['batch']) == {0, 4}
    assert set(counts['image']) == {0, 1, 2, 3, 4}
    assert all((CutMix(prob=0.).draw(view, seeded(s))['box'] == 0).all() for s in range(20))
    assert all((CutMix(prob=1.).draw(view, seeded(s))['box'][:, 2] > 0).all() for s in range(20))


def test_partners():
    assert draw_partner('next', 4, seeded(0)).tolist() == [1, 2, 3, 0]
    assert draw_partner('flip', 4, seeded(0)).tolist() == [3, 2, 1, 0]
    seen = {tuple(draw_partner('shuffle', 4, seeded(s)).tolist()) for s in range(200)}
    assert len(seen) == 6  # the cycles of length 4
    assert all(sorted(p) == [0, 1, 2, 3] and all(p[i] != i for i in range(4)) for p in seen)


def test_one_image_is_the_identity_and_warns_once():
    _warn_single_image.cache_clear()
    view = coded_view(1, 8, 8)
    for kind in ('next', 'flip', 'shuffle'):
        augment = CutMix(prob=1., partner=kind)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            for seed in range(3):
                mixed = augment(view, seeded(seed))
                assert all(torch.equal(a, b) for a, b in zip(maps(mixed), maps(view), strict=True))
        messages = [str(w.message) for w in caught]
        assert len(messages) == (kind == 'next') and all('one unlabeled image' in m for m in messages)


def test_global_random_state_is_left_alone():
    view = coded_view(3, 8, 8)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    CutMix(per='image', partner='shuffle')(view, seeded(0))
    CutMix(box='area_ratio')(view, seeded(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize('option', [dict(box='x'), dict(per='x'), dict(partner='x'), dict(prob=1.5), dict(prob=-0.1)])
def test_options(option):
    with pytest.raises(ValueError, match=str(next(iter(option.values())))):
        CutMix(**option)
