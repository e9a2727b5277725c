import pytest
import torch

from mmseg_semi.models.augments import PatchMask
from mmseg_semi.models.augments.patch_mask import draw_cells
from mmseg_semi.structures import Target, View


def view_of(size=3, height=24, width=40):
    torch.manual_seed(0)
    label = torch.randint(5, (size, height, width))
    valid = torch.rand(size, height, width) < 0.9
    weight = (torch.rand(size, height, width) < 0.5) * valid.float()
    return View(torch.rand(size, 3, height, width) + 1, Target(label, weight, torch.rand_like(weight), valid))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def visible_of(view, out):
    return (out.images == view.images).all(dim=1)


@pytest.mark.parametrize('mode', ['bernoulli', 'exact'])
@pytest.mark.parametrize('ratio', [0.0, 0.3, 0.7, 1.0])
def test_visible_share(mode, ratio):
    cells = draw_cells(1000, 8, 8, torch.full((1000, ), ratio), mode, generator())
    share = cells.float().mean().item()
    assert share == pytest.approx(max(1 - ratio, 1 / 64), abs=0.01 if mode == 'bernoulli' else 1 / 64)
    per_image = cells.flatten(1).sum(1)
    assert per_image.min() >= 1
    if mode == 'exact':
        assert (per_image == max(1, 64 - int(ratio * 64))).all()
    assert ratio in (0., 1.) or len({tuple(c.flatten().tolist()) for c in cells}) > 900


@pytest.mark.parametrize('side, spread', [(5, 0.09), (8, 0.06), (12, 0.04)])
def test_small_grids_make_bernoulli_noisy(side, spread):
    """The numbers of specification section 4."""
    cells = draw_cells(2000, side, side, torch.full((2000, ), 0.7), 'bernoulli', generator())
    assert cells.float().mean(dim=(1, 2)).std().item() == pytest.approx(spread, abs=0.005)


def test_cells_are_blocks_of_the_image():
    view = view_of()
    out = PatchMask(block_size=8, ratio=0.5)(view, generator())
    visible = visible_of(view, out)
    blocks = visible.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)  # 3 x 5 cells
    assert (blocks.all(3) | ~blocks.any(3)).all() and blocks.any() and not blocks.all()
    # A side that is no multiple of the block: round(side / block) cells, never none.
    for height, width, size, cells in ((24, 40, 16, (2, 3)), (24, 40, 26, (1, 2)), (8, 40, 20, (1, 2))):
        params = PatchMask(block_size=size).draw(view_of(3, height, width), generator())
        assert params['cells'].shape == (3, *cells)


@pytest.mark.parametrize('height, width', [(80, 80), (95, 90), (20, 95)])
def test_a_crop_of_one_cell_is_refused(height, width):
    view, largest = view_of(1, height, width), 2 * max(height, width) // 3
    for ratio in (0.7, (0, 0.1)):
        with pytest.raises(ValueError, match=rf'block_size=64 .*{height} x {width} .*block_size of at most {largest}'):
            PatchMask(block_size=64, ratio=ratio)(view, generator())
        with pytest.raises(ValueError, match=f'at most {largest}'):
            PatchMask(block_size=largest + 1, ratio=ratio)(view, generator())
    assert PatchMask(block_size=largest).draw(view, generator())['cells'].numel() > 1
    assert PatchMask(block_size=64, ratio=0)(view, generator()).images.equal(view.images)  # asked to hide nothing


def test_nothing_hidden_is_the_same_view():
    view = view_of()
    out = PatchMask(ratio=0)(view, generator())
    assert torch.equal(out.images, view.images) and out.target is view.target


def test_fills():
    view, mask = view_of(), PatchMask(block_size=8)
    mask.image_mean = torch.tensor([.1, .2, .3]).view(3, 1, 1)
    mask.image_std = torch.tensor([.5, .25, .125]).view(3, 1, 1)
    out = mask(view, generator())
    hidden = ~visible_of(view, out)
    assert torch.equal(out.images[hidden.nonzero()[:, 0], :, hidden.nonzero()[:, 1], hidden.nonzero()[:, 2]],
                       mask.image_mean.view(1, 3).expand(int(hidden.sum()), 3))
    big = view_of(8, 64, 64)
    noise = PatchMask(block_size=8, fill='noise')
    noise.image_mean, noise.image_std = mask.image_mean, mask.image_std
    out = noise(big, generator())
    drawn = ((out.images - mask.image_mean) / mask.image_std).movedim(1, 3)[~visible_of(big, out)]
    assert drawn.mean().abs() < 0.02 and drawn.std().item() == pytest.approx(1, abs=0.02)
    other = PatchMask(block_size=8, fill='mix')
    params = other.draw(view, generator())
    out = other.apply(view, params)
    hidden = ~visible_of(view, out)
    partner = view.images[params['partner']]
    assert torch.equal(out.images.movedim(1, 3)[hidden], partner.movedim(1, 3)[hidden])
    assert (params['partner'] != torch.arange(3)).all()


@pytest.mark.parametrize('region', ['all', 'visible', 'masked'])
def test_regions(region):
    view = view_of()
    before = [t.clone() for t in (view.images, *vars(view.target).values())]
    out = PatchMask(block_size=8, ratio=0.5, loss_region=region)(view, generator())
    visible = visible_of(view, out)
    trained = {'all': torch.ones_like(visible), 'visible': visible, 'masked': ~visible}[region]
    assert torch.equal(out.target.valid, view.target.valid & trained)
    assert torch.equal(out.target.weight, view.target.weight * trained)
    assert torch.equal(out.target.label, view.target.label)
    for old, new in zip(before, (view.images, *vars(view.target).values()), strict=True):
        assert torch.equal(old, new), 'the given view is left alone'


def test_a_range_of_ratios_is_drawn_per_image():
    view = view_of(64, 64, 64)
    cells = PatchMask(block_size=4, ratio=(0.2, 0.9)).draw(view, generator())['cells']
    share = 1 - cells.flatten(1).float().mean(1)
    assert share.min() < 0.3 and share.max() > 0.8


@pytest.mark.parametrize('options, message', [
    (dict(ratio=1.2), r'PatchMask.ratio must be .* found 1.2'), (dict(ratio=(0.5, 0.2)), 'range'),
    (dict(block_size=0), 'block_size must be positive, found 0'), (dict(fill='black'), "'black'"),
    (dict(ratio_mode='some'), "'some'"), (dict(loss_region='none'), "'none'")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PatchMask(**options)


def test_exact_counts_whatever_the_rounding_of_floats():
    for cells, ratio, hidden in ((100, 0.53, 53), (100, 0.59, 59), (64, 0.7, 44), (10, 0.3, 3)):
        drawn = draw_cells(1, 1, cells, torch.tensor([ratio]), 'exact', generator())
        assert (~drawn).sum() == hidden
