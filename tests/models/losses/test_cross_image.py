import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_semi.models.losses import cross_image
from mmseg_semi.models.losses.cross_image import (
    anchor_scores,
    consistency_loss,
    cosine_similarity_map,
    image_score,
    masked_average_pool,
    rectified_cross_entropy,
    rectify_weight,
)

YES = torch.tensor([True])
SIZES = [((5, 4), (9, 8)), ((7, 3), (33, 10)), ((1, 6), (4, 23)), ((8, 8), (8, 8)), ((21, 13), (81, 49)),
         ((9, 10), (4, 5))]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=atol, rtol=0)


def published_pool(features, mask, align_corners):
    """Section 4 to the letter, class by class."""
    up = F.interpolate(features, mask.shape[-2:], mode='bilinear', align_corners=align_corners)
    return (up * mask[:, None]).sum((2, 3)) / (mask.sum((1, 2))[:, None] + 5e-4)


def toy_features():
    return torch.tensor([[[[1., 2], [3, 4]], [[0, 1], [0, 1]]]])


@pytest.mark.parametrize('mask, expected', [([[1, 0], [0, 1]], (2.499375, 0.499875)), ([[0, 0], [0, 0]], (0, 0)),
                                            ([[1, 1], [1, 1]], (2.499688, 0.499938))])
def test_pooling(mask, expected):
    """Section 12 item 1."""
    close(masked_average_pool(toy_features(), torch.tensor([mask]).bool()), [expected])


def test_anchors():
    """Section 12 item 12: a class that an image does not have adds zeros, which the cosine does not see."""
    features = torch.full((2, 2, 4, 4), 2.)
    features[:, 1] = 0
    label = torch.zeros(2, 8, 8, dtype=torch.long)
    label[0, :3] = 1
    regions = F.one_hot(label, 3).movedim(-1, 1).bool()
    vectors = masked_average_pool(features, regions, eps=1e-7)
    close(vectors, [[[2, 0], [2, 0], [0, 0]], [[2, 0], [0, 0], [0, 0]]])
    images = regions.any(-1).any(-1).sum(0)
    mean, robust = vectors.sum(0) / 2, vectors.sum(0) / images.clamp(min=1)[:, None]
    close(mean[1], [1, 0])
    close(robust[1], [2, 0])
    args = torch.ones(3, dtype=torch.bool), label[0]
    assert torch.equal(*(anchor_scores(features[0], anchors, *args)[0] for anchors in (mean, robust)))


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('source, size', SIZES)
def test_pooling_is_that_of_resized_features(source, size, align_corners):
    features = torch.randn(3, 6, *source, requires_grad=True)
    mask = torch.rand(3, *size) < 0.3
    mask[1] = False
    weight = torch.randn(3, 6)
    results = []
    for pool in (masked_average_pool(features, mask, align_corners=align_corners),
                 published_pool(features, mask, align_corners)):
        gradient, = torch.autograd.grad((pool * weight).sum(), features)
        results.append((pool.detach(), gradient))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    pool, gradient = results[0]
    assert (pool[1] == 0).all() and (gradient[1] == 0).all() and gradient[0].abs().sum() > 0


def test_regions_of_an_image():
    features, regions = torch.randn(2, 5, 6, 7), torch.rand(2, 4, 21, 25) < 0.2
    expected = torch.stack([published_pool(features, regions[:, k], False) for k in range(4)], 1)
    torch.testing.assert_close(masked_average_pool(features, regions), expected, atol=1e-5, rtol=1e-5)


def test_pooling_makes_no_features_of_the_size_of_the_mask():
    class Watch(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.largest = max(self.largest, out.numel())
            return out

    features, mask = torch.randn(2, 16, 9, 9, requires_grad=True), torch.ones(2, 33, 33, dtype=torch.bool)
    with Watch() as watch:
        masked_average_pool(features, mask).sum().backward()
    assert watch.largest == max(features.numel(), mask.numel())
    with Watch() as watch:
        published_pool(features, mask, False).sum().backward()
    assert watch.largest == 16 * mask.numel()


def test_precision():
    """Areas over 65504 and small cosines survive half precision."""
    features = torch.rand(2, 8, 5, 5)
    mask = torch.ones(2, 321, 321, dtype=torch.bool)
    for dtype in (torch.float16, torch.bfloat16):
        half = features.to(dtype).requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            pooled = masked_average_pool(half, mask)
            similarity = cosine_similarity_map(half, pooled, (9, 9))
            loss = consistency_loss(similarity, similarity > 2, similarity <= 2, torch.ones(2).bool())
        for actual, expected in ((pooled, masked_average_pool(half.float(), mask)),
                                 (similarity, cosine_similarity_map(half.float(), pooled, (9, 9)))):
            assert actual.dtype == torch.float32
            torch.testing.assert_close(actual, expected, atol=0, rtol=0)
        assert loss.dtype == torch.float32
        loss.backward()
        assert half.grad.isfinite().all() and half.grad.abs().sum() > 0
    assert masked_average_pool(features.double(), mask).dtype == torch.float64


def test_pooling_after_inference():
    """What an evaluation has cached serves training."""
    features, mask = torch.randn(1, 2, 6, 11, requires_grad=True), torch.ones(1, 19, 31, dtype=torch.bool)
    with torch.inference_mode():
        masked_average_pool(features, mask)
    masked_average_pool(features, mask).sum().backward()
    assert features.grad.abs().sum() > 0


def pixel_similarity(pixel, vector, similarity_range='relu'):
    features = torch.tensor(pixel)[None, :, None, None]
    return cosine_similarity_map(features, torch.tensor([vector]), (1, 1), similarity_range)[0, 0, 0]


@pytest.mark.parametrize('pixel, relu, affine', [
    ((5., 1.), 1, 1), ((1., 0.), 0.980581, 0.990290), ((0., 1.), 0.196116, 0.598058), ((-1., 0.), 0, 0.009710),
    ((0., 0.), 0, 0.5)])
def test_cosine(pixel, relu, affine):
    """Section 12 item 2."""
    v = (2.499375, 0.499875)
    for similarity_range, expected in (('relu', relu), ('affine', affine)):
        close(pixel_similarity(pixel, v, similarity_range), expected)
        close(pixel_similarity([7 * x for x in pixel], v, similarity_range), expected)
        close(pixel_similarity(pixel, [7 * x for x in v], similarity_range), expected)
    close(pixel_similarity(pixel, (0., 0.), 'affine'), 0.5)


def test_similarities_are_resized():
    """Section 12 item 3."""
    cosine = torch.tensor([0.2, 0.8])
    features = torch.stack([cosine, (1 - cosine**2).sqrt()])[None, :, None]
    close(cosine_similarity_map(features, torch.tensor([[3., 0]]), (1, 4))[0, 0], (0.2, 0.35, 0.65, 0.8))
    close(cosine_similarity_map(features, torch.tensor([[3., 0]]), (1, 4), align_corners=True)[0, 0],
          (0.2, 0.4, 0.6, 0.8))


@pytest.mark.parametrize('similarity_range', ['relu', 'affine'])
@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('source, size', SIZES)
def test_cosine_of_every_pixel(source, size, align_corners, similarity_range):
    features, vector = torch.randn(3, 6, *source, requires_grad=True), torch.randn(3, 6, requires_grad=True)
    cosine = F.cosine_similarity(features, vector[:, :, None, None], dim=1, eps=1e-8)
    expected = F.interpolate(cosine[:, None], size, mode='bilinear', align_corners=align_corners)[:, 0]
    expected = (expected + 1) / 2 if similarity_range == 'affine' else F.relu(expected)
    actual = cosine_similarity_map(features, vector, size, similarity_range, align_corners)
    weight = torch.randn(3, *size)
    gradients = [torch.autograd.grad((x * weight).sum(), (features, vector)) for x in (actual, expected)]
    torch.testing.assert_close((actual, *gradients[0]), (expected, *gradients[1]), atol=1e-5, rtol=1e-5)


def test_similarities_stay_in_range():
    features = torch.rand(1, 256, 40, 40) + 0.01
    vector = features[:, :, 3, 3]
    features[:] = vector[:, :, None, None] * torch.rand(40, 40)
    for similarity_range in ('relu', 'affine'):
        similarity = cosine_similarity_map(features, vector, (80, 80), similarity_range)
        assert similarity.max() <= 1 and similarity.min() > 0.9999
    similarity = cosine_similarity_map(-features, vector, (80, 80), 'affine')
    assert similarity.min() >= 0 and similarity.max() < 1e-4


def test_a_vector_of_zeros_does_not_move():
    """Its cosine is 0, as the eps makes it, but not with the gradient 1 / eps."""
    features, vector = torch.rand(1, 4, 2, 2), torch.rand(1, 4)
    features[..., 1, 1] = 0
    for zero in (False, True):
        args = features.clone().requires_grad_(), (vector * (not zero)).requires_grad_()
        # Affine: torch decides by version whether clipping has a gradient at the very bound.
        similarity = cosine_similarity_map(*args, (4, 4), 'affine')
        similarity.sum().backward()
        assert similarity[0, 3, 3] == 0.5 and (args[0].grad[..., 1, 1] == 0).all()
        for x in (*(a.grad for a in args), similarity - 0.5):
            assert (x == 0).all() if zero else 0 < x.abs().max() < 20


def toy_maps():
    """Items 4 and 5."""
    return torch.tensor([[[.9, .2, .6, .5]]]), torch.tensor([[[1, 0, 1, 0]]]).bool()


def test_consistency():
    """Section 12 item 4."""
    similarity, mask = toy_maps()
    valid = torch.tensor([[[True, True, True, False]]])
    close(consistency_loss(similarity, mask, valid, YES), 0.279777)
    close(consistency_loss(similarity, mask, torch.ones_like(valid), YES), 0.383119)
    zeros = torch.zeros(1, 1, 4)
    close(consistency_loss(zeros, zeros.bool(), valid, YES), 0, atol=1.1e-6)
    close(consistency_loss(zeros, ~zeros.bool(), valid, YES), 13.815511)
    close(consistency_loss(zeros + 1, zeros.bool(), valid, YES), 13.815511)


def test_consistency_pixel_by_pixel():
    """Section 4: the mean of the batch's valid pixels, those of pairs without a shared class included."""
    similarity = (1.2 * torch.rand(3, 5, 7) - 0.1).requires_grad_()  # what rounding may do, exaggerated
    mask, valid = torch.rand(3, 5, 7) < 0.4, torch.rand(3, 5, 7) < 0.7
    has_guide = torch.tensor([True, False, True])
    clipped = similarity.clamp(1e-6, 1 - 1e-6)
    terms = F.binary_cross_entropy(clipped, mask.float(), reduction='none')
    expected = sum(terms[b][valid[b]].sum() for b in (0, 2)) / valid.sum()
    actual = consistency_loss(similarity, mask, valid, has_guide)
    gradients = [torch.autograd.grad(x, similarity)[0] for x in (actual, expected)]
    torch.testing.assert_close((actual, gradients[0]), (expected, gradients[1]), atol=1e-5, rtol=1e-3)
    assert (gradients[0][1] == 0).all()


@pytest.mark.parametrize('similarity_range', ['relu', 'affine'])
@pytest.mark.parametrize('missing', ['guide', 'labels', 'nothing'])
def test_consistency_trains_both_images(missing, similarity_range):
    """Section 12 item 13: exactly 0, with a finite gradient of zeros, when no pixel has a say."""
    features = [torch.randn(2, 6, 5, 5).relu().requires_grad_() for _ in range(2)]
    masks = [torch.rand(2, 17, 17) < 0.3 for _ in range(2)]
    valid, has_guide = torch.ones(2, 17, 17, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    if missing == 'guide':
        has_guide[:] = False
        masks = [torch.zeros_like(mask) for mask in masks]
    if missing == 'labels':
        valid[:] = False
    vectors = [masked_average_pool(f, m) for f, m in zip(features, masks, strict=True)]
    # Of the first image alone: its own features and the second's, through the vector.
    similarity = cosine_similarity_map(features[0], vectors[1], (17, 17), similarity_range)
    loss = consistency_loss(similarity, masks[0], valid, has_guide)
    loss.backward()
    for f in features:
        assert f.grad.isfinite().all() and (f.grad != 0).any() == (missing == 'nothing')
    assert (loss > 0) == (missing == 'nothing') and loss.isfinite()


def test_rectified_cross_entropy():
    """Section 12 item 5."""
    similarity, mask = toy_maps()
    weight = rectify_weight(similarity, mask, YES)
    close(weight, [[[.9, .8, .6, .5]]])
    losses = torch.tensor([2.0, 1.0, 0.5, 0.3])
    label = torch.tensor([[[0, 0, 0, 255]]])
    logits = torch.stack([torch.zeros(4), losses.expm1().log()])[None, :, None].requires_grad_()
    for w, average_ignored, expected in ((weight, True, 0.725), (weight, False, 0.966667),
                                         (torch.ones_like(weight), True, 0.875)):
        close(rectified_cross_entropy(logits, label, w, average_ignored), expected)
    close(rectified_cross_entropy(logits, label, weight), 0.725)  # published by default
    gradient, = torch.autograd.grad(rectified_cross_entropy(logits, label, weight), logits)
    assert (gradient[0, :, 0] != 0).any(0).tolist() == [True, True, True, False]
    logits = torch.tensor([0, math.log(3)])[None, :, None, None]
    weight = rectify_weight(torch.full((1, 1, 1), .25), torch.ones(1, 1, 1).bool(), YES)
    close(rectified_cross_entropy(logits, label[..., :1], weight), 0.346574)
    close(rectified_cross_entropy(logits, label[..., :1], torch.ones(1, 1, 1)), 1.386294)


@pytest.mark.parametrize('average_ignored', [True, False])
def test_pseudo_labels_that_are_all_ignored(average_ignored):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    args = torch.full((2, 4, 4), 255), torch.ones(2, 4, 4), average_ignored
    for dtype in (torch.float32, torch.float16):
        loss = rectified_cross_entropy(logits.to(dtype), *args)
        loss.backward()
        assert loss == 0 and loss.dtype == torch.float32 and (logits.grad == 0).all()


def test_weights_out_of_range():
    """Section 12 item 6."""
    similarity = torch.tensor([-.2, -.2, 1.1, 1.1])[None, None].requires_grad_()
    mask = torch.tensor([True, False, True, False])[None, None]
    weight = rectify_weight(similarity, mask, YES)
    assert weight.tolist() == [[[0, 1, 1, 0]]] and not weight.requires_grad
    assert (rectify_weight(similarity, mask, ~YES) == 1).all()
    assert (rectify_weight(math.nan * similarity, mask, ~YES) == 1).all()
    weight = rectify_weight(torch.rand(2, 1, 4), mask.expand(2, 1, 4), torch.tensor([True, False]))
    assert (weight[0] < 1).all() and (weight[1] == 1).all()


def cosines(*rows):
    """Features [D, 1, w] and anchors [C, D] whose cosines are the rows, one of each class."""
    cosine = torch.tensor(rows)
    rest = (1 - (cosine**2).sum(0)).sqrt()
    return torch.cat([cosine, rest[None]])[:, None], torch.eye(len(rows) + 1)[:-1]


def test_scores():
    """Section 12 item 7."""
    valid = torch.ones(2, dtype=torch.bool)
    a = anchor_scores(*cosines((.9, .2), (.1, .8)), valid, torch.tensor([[0, 1]]))
    close(a[0], (0.164252, 0.164252))
    b = anchor_scores(*cosines((.75, .75), (.1, .2)), valid, torch.tensor([[0, 0]]))
    assert a[1].tolist() == [True, True] and b[1].tolist() == [True, False]
    for args, expected in (((*a, 'sum'), 0.328504), ((*a, 'mean'), 0.164252), ((*b, 'sum'), 0.287682),
                           ((*b, 'mean'), 0.287682), (a, 0.328504)):
        close(image_score(*args), expected)


@pytest.mark.parametrize('chunk', [None, 3 * 33 * 10, 1])
@pytest.mark.parametrize('similarity_range', ['relu', 'affine'])
@pytest.mark.parametrize('align_corners', [True, False])
def test_scores_class_by_class(align_corners, similarity_range, chunk, monkeypatch):
    if chunk:
        monkeypatch.setattr(cross_image, 'CHUNK', chunk)
    features, anchors = torch.randn(6, 7, 3), torch.randn(8, 6)
    label = torch.randint(6, (33, 10))  # not the last two
    label[:20] = 255
    label[label == 3] = 4
    anchor_valid = torch.arange(8) != 2
    anchors[2] = 0
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores, occurs = anchor_scores(features.requires_grad_(), anchors, anchor_valid, label.to(torch.uint8),
                                       similarity_range, align_corners)
    assert occurs.tolist() == [c in (0, 1, 2, 4, 5) for c in range(8)] and not scores.requires_grad
    expected = []
    for c in range(8):
        similarity = cosine_similarity_map(features[None], anchors[c][None], (33, 10), similarity_range, align_corners)
        valid = label != 255
        expected.append(F.binary_cross_entropy(similarity[0][valid].clamp(1e-6, 1 - 1e-6), (label == c)[valid].float()))
    expected[2] = torch.tensor(math.inf)
    torch.testing.assert_close(scores, torch.stack(expected), atol=1e-5, rtol=1e-4)
    used = [expected[c] for c in (0, 1, 4, 5)]
    close(image_score(scores, occurs), sum(used), atol=1e-4)
    close(image_score(scores, occurs, 'mean'), sum(used) / 4, atol=1e-4)


def test_images_without_a_score_come_last():
    features, anchors = torch.randn(6, 3, 3), torch.randn(4, 6)
    every, label = torch.ones(4, dtype=torch.bool), torch.tensor([[0, 255], [2, 255]])
    for valid, y in ((every, torch.full((2, 2), 255)), (~every, label), (torch.tensor([0, 1, 0, 1]).bool(), label)):
        scores, occurs = anchor_scores(features, anchors, valid, y)
        assert all(image_score(scores, occurs, reduce) == math.inf for reduce in ('sum', 'mean'))
        assert torch.equal(scores < math.inf, valid & (y != 255).any())
    scores, occurs = anchor_scores(features * math.nan, anchors, every, label)
    assert image_score(scores, occurs).isnan()  # a diverged network shows


def test_bad_options():
    maps = torch.randn(1, 2, 3, 3), torch.randn(1, 2), (5, 5)
    with pytest.raises(ValueError, match="similarity_range must be 'relu' or 'affine', got 'raw'"):
        cosine_similarity_map(*maps, 'raw')
    with pytest.raises(ValueError, match="similarity_range must be 'relu' or 'affine', got 'raw'"):
        anchor_scores(maps[0][0], maps[1], YES, torch.zeros(5, 5), 'raw')
    with pytest.raises(ValueError, match="reduce must be 'sum' or 'mean', got 'max'"):
        image_score(torch.ones(2), torch.ones(2).bool(), 'max')


def test_values_are_never_read(monkeypatch):
    """Tensors of the meta device have no values: ``.item()``, ``nonzero`` and boolean masks fail on them."""
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: contextlib.nullcontext())  # knows no meta device
    features = torch.empty(2, 6, 5, 4, device='meta', requires_grad=True)
    label = torch.empty(2, 9, 8, dtype=torch.long, device='meta')
    has_guide = torch.empty(2, dtype=torch.bool, device='meta')
    mask, valid = label == 3, label != 255
    for align_corners in (True, False):
        for similarity_range in ('relu', 'affine'):
            vector = masked_average_pool(features, mask, align_corners=align_corners)
            similarity = cosine_similarity_map(features, vector, (9, 8), similarity_range, align_corners)
            consistency_loss(similarity, mask, valid, has_guide).backward()
    weight = rectify_weight(similarity, mask, has_guide)
    logits = torch.empty(2, 3, 9, 8, device='meta', requires_grad=True)
    for average_ignored in (True, False):
        rectified_cross_entropy(logits, label, weight, average_ignored).backward()
    scores = anchor_scores(features[0], vector, has_guide, label[0])
    assert image_score(*scores).is_meta and features.grad.shape == features.shape
