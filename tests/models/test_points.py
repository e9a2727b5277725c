import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_semi.models.feature_tap import FeatureTap
from mmseg_semi.models.points import PointReader, stratified_pixels


def test_grid_of_the_specification():
    gen = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        rows, columns = stratified_pixels(9, 9, 4, gen)
        assert len(rows) == 16
        assert (rows // 2).tolist() == [a for a in range(4) for _ in range(4)]
        assert (columns // 2).tolist() == list(range(4)) * 4
        seen.update(rows.tolist() + columns.tolist())
    assert seen == set(range(8))  # row and column 8 never
    rows, _ = stratified_pixels(513, 513, 32, gen)
    assert rows.max() <= 511
    rows, columns = stratified_pixels(64, 96, 32, gen)  # cells need not be square
    assert rows.max() <= 63 and columns.max() <= 95


def test_every_pixel_of_a_cell_is_equally_likely():
    gen = torch.Generator().manual_seed(0)
    counts = torch.zeros(4, 4)
    for _ in range(4000):
        rows, columns = stratified_pixels(4, 4, 1, gen)
        counts[rows, columns] += 1
    assert counts.min() > 180 and counts.max() < 320  # 250 expected


def test_a_cell_may_be_a_single_pixel():
    rows, columns = stratified_pixels(3, 2, 2, torch.Generator().manual_seed(0))
    assert rows.tolist() == [0, 0, 1, 1] and columns.tolist() == [0, 1, 0, 1]


def test_a_crop_smaller_than_the_grid_is_refused():
    with pytest.raises(ValueError, match='32 cells.*20x40'):
        stratified_pixels(20, 40, 32, torch.Generator())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('feature_size,image_size', [((9, 9), (33, 33)), ((7, 10), (40, 25)), ((12, 12), (5, 6))])
def test_reads_equal_resizing_first(align_corners, feature_size, image_size, memory_format):
    feature = torch.randn(2, 3, *feature_size).to(memory_format=memory_format)
    full = F.interpolate(feature, image_size, mode='bilinear', align_corners=align_corners)
    rows, columns = (g.flatten() for g in torch.meshgrid(*(torch.arange(s) for s in image_size), indexing='ij'))
    points = PointReader(rows, columns, image_size, align_corners).read(feature)
    torch.testing.assert_close(points, full.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)


class Head(nn.Module):

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.conv_seg = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.conv_seg(torch.relu(self.first(x)))


def test_gradient_through_the_tap_equals_resizing_first():
    torch.manual_seed(0)
    head, image = Head().double(), torch.randn(2, 3, 9, 9, dtype=torch.double)
    tap = FeatureTap(head)
    rows, columns = stratified_pixels(33, 33, 4, torch.Generator().manual_seed(1))
    target = torch.randn(2, 16, 6)

    with tap.reading(PointReader(rows, columns, (33, 33), True)):
        logits = head(image)
    (logits.square().sum() + (tap.pop() * target).sum()).backward()
    got = [p.grad.clone() for p in head.parameters()]

    head.zero_grad()
    feature = torch.relu(head.first(image))
    full = F.interpolate(feature, (33, 33), mode='bilinear', align_corners=True)
    picked = full[:, :, rows, columns].transpose(1, 2)
    (head.conv_seg(feature).square().sum() + (picked * target).sum()).backward()
    for mine, reference in zip(got, [p.grad for p in head.parameters()], strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [(9, 9), (1, 7), (7, 1)])
def test_the_points_gradient_is_added_in_place_in_both_layouts(memory_format, size):
    torch.manual_seed(0)
    feature = torch.randn(2, 6, *size).contiguous(memory_format=memory_format).requires_grad_()
    rows, columns = stratified_pixels(33, 33, 4, torch.Generator().manual_seed(1))
    passed, points = PointReader(rows, columns, (33, 33), True)(feature)
    sent = torch.randn(2, 6, *size).contiguous(memory_format=memory_format)
    target = torch.randn_like(points)
    full = F.interpolate(feature, (33, 33), mode='bilinear', align_corners=True)[:, :, rows, columns].transpose(1, 2)
    expected = sent + torch.autograd.grad(full, feature, target)[0]
    got, = torch.autograd.grad((passed, points), feature, (sent, target))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert got.data_ptr() == sent.data_ptr() and got.stride() == sent.stride()  # no copy


def test_points_alone_carry_a_gradient_too():
    feature = torch.randn(1, 2, 3, 3, requires_grad=True)
    _, points = PointReader(torch.tensor([0]), torch.tensor([2]), (3, 3), True)(feature)
    points.sum().backward()
    expected = torch.zeros(1, 2, 3, 3)
    expected[:, :, 0, 2] = 1
    torch.testing.assert_close(feature.grad, expected)


def test_tap_reads_the_input_of_any_module_and_forgets_it():
    head = Head()
    tap = FeatureTap(head, 'first')
    assert tap.channels == 3
    image = torch.randn(1, 3, 5, 5)
    head(image)
    assert tap.pop() is image
    with pytest.raises(RuntimeError, match='has not run'):
        tap.pop()


def test_a_wrong_tap_names_the_modules_there_are():
    with pytest.raises(ValueError, match=r"no module 'fuse'.*first.*conv_seg"):
        FeatureTap(Head(), 'fuse')


def test_a_tap_on_anything_but_a_convolution_is_refused():
    head = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    with pytest.raises(ValueError, match="'0' of Sequential must start with a Conv2d, found BatchNorm2d"):
        FeatureTap(head, '0')
