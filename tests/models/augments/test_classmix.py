import pytest
import torch

from mmseg_semi.models.augments import ClassMix
from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import Target, View


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def view_of(label, valid=None):
    """Images, weight and confidence say which image and place a pixel comes from."""
    code = torch.arange(label.numel()).reshape(label.shape).double()
    valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
    return View(torch.stack([code, code + 0.25, code + 0.5], 1), Target(label, code + 1, code + 2, valid))


def random_view(seed, size=4, height=9, width=11, classes=6):
    generator = seeded(seed)
    coarse = torch.randint(0, classes, (size, 1, 3, 3), generator=generator).double()
    label = torch.nn.functional.interpolate(coarse, (height, width)).long()[:, 0]
    valid = torch.ones(size, height, width, dtype=torch.bool)
    valid[0, -2:] = False
    valid[2, :, -4:] = False
    label[~valid] = 5
    return view_of(label, valid)


def slow(view, params):
    """One image and one pixel at a time."""
    label, valid = view.target.label, view.target.valid
    source = torch.arange(len(label))[:, None, None].repeat(1, *label.shape[1:])
    for i, j in enumerate(params['partner'].tolist()):
        if not params['gate'][i]:
            continue
        classes = sorted(set(label[j][valid[j]].tolist()))
        classes.sort(key=lambda c: -params['scores'][j, c].item())
        taken = classes[:len(classes) // 2]
        for r in range(label.shape[1]):
            for c in range(label.shape[2]):
                if valid[j, r, c] and label[j, r, c] in taken:
                    source[i, r, c] = j
    return source


def pick(x, source):
    rows, cols = torch.meshgrid(torch.arange(x.shape[-2]), torch.arange(x.shape[-1]), indexing='ij')
    if x.dim() == 4:
        return torch.stack([pick(x[:, k], source) for k in range(x.shape[1])], 1)
    return x[source, rows, cols]


@pytest.mark.parametrize('partner', ['next', 'flip', 'shuffle'])
@pytest.mark.parametrize('prob', [1.0, 0.5])
def test_equals_slow_reference(partner, prob):
    augment = BATCH_AUGMENTS.build(dict(type='ClassMix', partner=partner, prob=prob))
    pasted = 0
    for seed in range(8):
        view = random_view(seed)
        before = [m.clone() for m in (view.images, *vars(view.target).values())]
        source = slow(view, augment.draw(view, seeded(seed)))
        mixed = augment(view, seeded(seed))
        for now, old in zip((mixed.images, *vars(mixed.target).values()), before, strict=True):
            assert torch.equal(now, pick(old, source))
        for now, old in zip((view.images, *vars(view.target).values()), before, strict=True):
            assert torch.equal(now, old)
        pasted += (source != torch.arange(4)[:, None, None]).sum().item()
    assert pasted > 200


def test_half_of_the_classes_each_equally_often():
    """Five classes in image 1, as stripes: image 0 receives two of them, each in 40 % of the draws."""
    label = torch.zeros(2, 2, 5, dtype=torch.long)
    label[1] = torch.arange(5) * 7
    view = view_of(label)
    count = torch.zeros(5)
    for seed in range(1000):
        received = (ClassMix()(view, seeded(seed)).images[0, 0] >= 10)
        assert torch.equal(received[0], received[1]) and received[0].sum() == 2
        count += received[0]
    assert (count / 1000).tolist() == pytest.approx([0.4] * 5, abs=0.05)


def test_one_class_gives_nothing_and_labels_up_to_254():
    label = torch.full((2, 3, 4), 254)
    view = view_of(label)
    assert torch.equal(ClassMix()(view, seeded(0)).images, view.images)
    label = label.clone()
    label[:, 0] = 0
    view = view_of(label)
    assert not torch.equal(ClassMix()(view, seeded(0)).images, view.images)


def test_padding_and_ignored_labels_are_no_class():
    """Class 0 plus padding of class 3, or plus 255: one class, nothing to paste."""
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    label[:, 2:] = 3
    valid = label == 0
    view = view_of(label, valid)
    assert all(torch.equal(ClassMix()(view, seeded(s)).images, view.images) for s in range(5))
    view = view_of(torch.where(valid, 0, 255))
    assert all(torch.equal(ClassMix()(view, seeded(s)).images, view.images) for s in range(5))


@pytest.mark.parametrize('option', [dict(partner='x'), dict(prob=1.5)])
def test_options(option):
    with pytest.raises(ValueError, match=str(next(iter(option.values())))):
        ClassMix(**option)
