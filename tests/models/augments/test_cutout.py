import pytest
import torch

from mmseg_semi.models.augments import Cutout
from mmseg_semi.structures import Target, View


def view_of(size=40, height=100, width=100):
    torch.manual_seed(0)
    valid = torch.ones(size, height, width, dtype=torch.bool)
    return View(torch.full((size, 3, height, width), 2.),
                Target(torch.randint(5, valid.shape), valid.float(), torch.rand(valid.shape), valid))


def test_a_box_becomes_noise_without_a_say():
    view = view_of()
    augment = Cutout(prob=0.5)
    params = augment.draw(view, torch.Generator().manual_seed(0))
    out = augment.apply(view, params)
    cut = 0
    for i, (top, left, height, width) in enumerate(params['box'].tolist()):
        inside = torch.zeros(100, 100, dtype=torch.bool)
        inside[top:top + height, left:left + width] = True
        assert torch.equal(out.target.valid[i], ~inside) and torch.equal(out.target.weight[i], (~inside).float())
        assert (out.images[i][:, ~inside] == 2).all() and (out.images[i][:, inside] <= 1).all()
        if height:
            cut += 1
            assert 0.015 < height * width / 1e4 <= 0.4 and 0.25 < height / width < 4  # sides are rounded down
            assert 0.4 < out.images[i][:, inside].mean() < 0.6
    assert 10 < cut < 30 and torch.equal(out.target.label, view.target.label)
    assert torch.equal(augment.apply(view, params).images, out.images)


def test_a_sixth_of_the_image():
    """ST++ specification, worked example 4: 40 x 40 of 100 x 100."""
    out = Cutout().apply(view_of(1), dict(box=torch.tensor([[3, 5, 40, 40]]), seed=1))
    assert int((~out.target.valid).sum()) == 1600
    with pytest.raises(ValueError, match='prob must be in'):
        Cutout(prob=2)


def test_boxes_keep_their_ratio():
    """ST++ specification, worked example 4: height by width in [0.3, 3.33], but for sides that are rounded down."""
    view = View(torch.zeros(2000, 3, 1000, 1000, device='meta'), None)
    boxes = Cutout(prob=1).draw(view, torch.Generator().manual_seed(0))['box'].double()
    height, width = boxes[:, 2], boxes[:, 3]
    assert ((height + 1) / width >= 0.3).all() and (height / (width + 1) <= 1 / 0.3).all()
    ratio = height / width
    assert ratio.min() < 0.32 and ratio.max() > 3.1
