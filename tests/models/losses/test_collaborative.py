import contextlib
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.losses.collaborative import (
    ImageWeightedCrossEntropy,
    attainable_similarity,
    collaborate,
    cosine_map,
    image_weights,
    nearest_grid,
    representation_prediction,
    softmax_similarity,
    update_prototypes,
)
from mmseg_semi.structures import Target

ROOT = Path(__file__).resolve().parents[3]
SEEN = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize('tau, voc, cityscapes', [(0.5, 0.732, 0.752), (0.25, 0.993, 0.994), (0.1, 1.0, 1.0)])
def test_attainable_similarity(tau, voc, cityscapes):
    """The table of specification section 3, and that softmax_similarity reaches the bound."""
    assert attainable_similarity(21, tau) == pytest.approx(voc, abs=5e-4)
    assert attainable_similarity(19, tau) == pytest.approx(cityscapes, abs=5e-4)
    cosine = -torch.ones(1, 21)
    cosine[0, 4] = 1
    best = softmax_similarity(cosine, torch.ones(21, dtype=torch.bool), tau).max()
    assert float(best) == pytest.approx(attainable_similarity(21, tau), abs=1e-6)
    if tau == 0.5:
        assert float(best) == pytest.approx(0.7319, abs=5e-5)  # section 11 item 2
    assert attainable_similarity(150, 0.5) == pytest.approx(0.27, abs=5e-3)


def similarity_to_own(cosine, classes, tau):
    """J of the own class where the other prototypes are orthogonal."""
    cosines = F.pad(torch.tensor([[cosine]]), (0, classes - 1))
    return float(softmax_similarity(cosines, torch.ones(classes, dtype=torch.bool), tau)[0, 0])


@pytest.mark.parametrize('tau, voc, cityscapes, leads', [
    (0.5, 0.270, 0.291, (2.19, 3.24)), (0.25, 0.732, 0.752, (1.10, 1.62)), (0.1, 0.999, 0.999, (0.44, 0.65))])
def test_orthogonal_prototypes(tau, voc, cityscapes, leads):
    """The table's other rows: what a pixel on its prototype reaches, and the lead that each threshold takes."""
    assert similarity_to_own(1., 21, tau) == pytest.approx(voc, abs=5e-4)
    assert similarity_to_own(1., 19, tau) == pytest.approx(cityscapes, abs=5e-4)
    for threshold, lead in zip((0.8, 0.97), leads, strict=True):
        assert similarity_to_own(lead - 0.005, 21, tau) < threshold < similarity_to_own(lead + 0.005, 21, tau)


@pytest.mark.parametrize('tau, expected', [(0.5, (0.7618, 0.1538, 0.0844)), (0.1, (0.99965, 0.00034, 0.00002))])
def test_softmax_similarity(tau, expected):
    """Section 11 item 2: hard for delta_s = 0.8 with tau 0.5 only."""
    similarity = softmax_similarity(torch.tensor([[0.9, 0.1, -0.2]]), SEEN, tau)
    torch.testing.assert_close(similarity[0], torch.tensor(expected), atol=6e-5, rtol=0)
    assert (similarity[0, 0] < 0.8) == (tau == 0.5)


def test_classes_without_prototype():
    cosine = torch.tensor([-0.3, 0, -0.5])[None, :, None, None].expand(2, 3, 4, 5)
    seen = torch.tensor([True, False, True])
    masked, published = (softmax_similarity(cosine, seen, 0.1, unseen) for unseen in ('mask', 'zero'))
    assert (masked.argmax(1) == 0).all() and (published.argmax(1) == 1).all()
    torch.testing.assert_close(masked[0, :, 0, 0], torch.tensor([1, 0, math.exp(-2)]) / (1 + math.exp(-2)))
    assert (softmax_similarity(cosine, ~SEEN, 0.1) == 0).all()
    with pytest.raises(ValueError, match="unseen must be 'mask' or 'zero', got 'skip'"):
        softmax_similarity(cosine, seen, 0.1, 'skip')


def test_cosine_map_pixel_by_pixel():
    features, prototypes = torch.randn(2, 5, 3, 4), torch.randn(4, 5)
    features[0, :, 1, 1], prototypes[2] = 0, 0
    cosine = cosine_map(features, prototypes)
    for n, c, y, x in ((0, 0, 0, 0), (1, 3, 2, 3), (0, 1, 1, 1), (1, 2, 0, 2)):
        expected = F.cosine_similarity(features[n, :, y, x], prototypes[c], dim=0)
        torch.testing.assert_close(cosine[n, c, y, x], expected, atol=1e-6, rtol=1e-5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(cosine_map(features, prototypes), cosine, atol=0, rtol=0)


@pytest.mark.parametrize('align_corners', [True, False])
def test_representation_prediction(align_corners):
    features, prototypes = torch.randn(2, 6, 3, 4, requires_grad=True), torch.randn(3, 6)
    args = features, prototypes, SEEN, (9, 8)
    label, confidence = representation_prediction(*args, 0.1, align_corners=align_corners)
    cosine = F.cosine_similarity(features[:, None], prototypes[None, :, :, None, None], dim=2)
    resized = F.interpolate(cosine, (9, 8), mode='bilinear', align_corners=align_corners)  # before the softmax
    expected = (resized / 0.1).softmax(1).max(1)
    torch.testing.assert_close((confidence, label), tuple(expected))
    assert not confidence.requires_grad
    other, less_sure = representation_prediction(*args, 0.5, align_corners=align_corners)
    assert torch.equal(other, label) and (less_sure < confidence).all()


def test_predictions_before_the_first_prototype():
    args = torch.randn(1, 6, 4, 4), torch.zeros(3, 6), ~SEEN, (4, 4), 0.5
    label, confidence = representation_prediction(*args)
    assert (label == 255).all() and (confidence == 0).all()
    label, confidence = representation_prediction(*args, unseen='zero')
    assert (label < 3).all() and confidence == pytest.approx(1 / 3)


@pytest.mark.parametrize('size, grid', [(769, 193), (512, 128), (321, 81), (96, 96)])
def test_nearest_grid(size, grid):
    """Section 11 item 11; the published code calls F.interpolate."""
    columns = torch.arange(size).expand(2, 5, size)
    small = nearest_grid(columns, (3, grid))
    if size == 769:
        assert small[1, 2, :6].tolist() == [0, 3, 7, 11, 15, 19]
    assert small.dtype == torch.int64
    for maps in (columns, columns.transpose(1, 2)):
        to = (3, grid) if maps is columns else (grid, 3)
        assert torch.equal(nearest_grid(maps, to), F.interpolate(maps[:, None].double(), to)[:, 0].long())
    assert nearest_grid(columns > 4, (3, grid)).dtype == torch.bool


def test_agreement():
    """Section 11 item 1."""
    y_lgt, y_rep = torch.tensor([[[0, 1, 2], [3, 1, 0]]]), torch.tensor([[[0, 2, 2], [3, 0, 0]]])
    k_lgt, k_rep = torch.rand(1, 2, 3), torch.rand(1, 2, 3)
    maps = y_lgt, k_lgt, y_rep, k_rep
    label, confidence, label_con, confidence_con = collaborate(*maps, 'mix')
    assert label.tolist() == [[[0, 255, 2], [3, 255, 0]]]
    assert confidence is k_lgt and label_con is label and confidence_con is k_lgt
    for actual, expected in ((collaborate(*maps, 'ori'), (y_lgt, k_lgt, y_lgt, k_lgt)),
                             (collaborate(*maps, 'cross'), (y_rep, k_rep, y_lgt, k_lgt)),
                             (collaborate(*maps, 'cross', warmup=True), (y_lgt, k_lgt, y_lgt, k_lgt))):
        assert all(a is e for a, e in zip(actual, expected, strict=True))
    with pytest.raises(ValueError, match="variant must be 'ori', 'mix' or 'cross', got 'both'"):
        collaborate(*maps, 'both')


def weighted_unsup_loss(logits, label, confidence, threshold, align_corners=True, **options):
    target = Target(label, torch.ones(label.shape), confidence, torch.ones(label.shape, dtype=torch.bool))
    return ImageWeightedCrossEntropy(threshold, **options)(logits, target, align_corners)


def toy_unsup():
    """Section 11 item 3: logits whose cross-entropy is 0.2, 0.4, 1, - and 0.6, exactly 0, -, -."""
    label = torch.tensor([[0, 1, 2, 255], [1, 1, 255, 255]])[:, None]
    confidence = torch.tensor([[.99, .98, .50, .99], [.60, .99, .10, .20]])[:, None]
    losses = torch.tensor([[.2, .4, 1.0, .7], [.6, 0, .7, .7]], dtype=torch.float64)[:, None]
    own = F.one_hot(label.where(label != 255, 0), 3).movedim(-1, 1)
    p = torch.where(own == 1, (-losses).exp()[:, None], (1 - (-losses).exp()[:, None]) / 2)
    logits = p.clamp(min=1e-13).log().float()
    return logits.requires_grad_(), label, confidence


@pytest.mark.parametrize('options, expected', [({}, 0.475), (dict(mean_over='valid'), 0.38),
                                               (dict(weight_numerator='valid'), 0.341667)])
def test_weighted_unsup_loss(options, expected):
    logits, label, confidence = toy_unsup()
    loss = weighted_unsup_loss(logits, label, confidence, 0.97, **options)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    moved = logits.grad.abs().sum(1)[:, 0] > 0
    # The pixel whose loss is exactly 0 trains only where it is counted.
    assert moved.tolist() == [[True, True, True, False], [True, 'mean_over' in options, False, False]]


def test_image_weights():
    _, label, confidence = toy_unsup()
    assert image_weights(label, confidence, 0.97).tolist() == [1, 0.5]
    assert image_weights(label, confidence, 0.97, 'valid').tolist() == pytest.approx([2 / 3, 0.5])
    label = torch.tensor([[[2, 255, 255, 255]], [[255] * 4]])
    confidence = torch.tensor([[[.99, .99, .98, .1]], [[.99] * 4]])
    assert image_weights(label, confidence, 0.97).tolist() == [3, 0]  # may exceed 1
    assert image_weights(label, confidence, 0.97, 'valid').tolist() == [1, 0]


@pytest.mark.parametrize('options, message', [
    (dict(weight_numerator='some'), "weight_numerator must be 'all' or 'valid', got 'some'"),
    (dict(mean_over='all'), "mean_over must be 'positive' or 'valid', got 'all'"),
    (dict(threshold=97), r'threshold must be in \[0, 1\], got 97'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImageWeightedCrossEntropy(**options)


def test_what_does_not_train_has_no_say():
    """Padding and pixels of weight 0 are as if they had no label, and padding no confidence."""
    logits, label, confidence = toy_unsup()
    loss = ImageWeightedCrossEntropy(0.97)
    weight, valid = torch.ones(label.shape), torch.ones(label.shape, dtype=torch.bool)
    weight[0, 0, 1], valid[0, 0, 3] = 0, False
    # Image 1: labels 0, 2 of cross-entropy .2 and 1; three of its pixels are confident, one of them is padding.
    assert loss.weights(Target(label, weight, confidence, valid)).tolist() == [1, 0.5]
    assert loss(logits, Target(label, weight, confidence, valid), True).item() == pytest.approx((1.2 + 0.3) / 3)
    every = ImageWeightedCrossEntropy(0)  # a threshold that the confidence 0 of padding meets
    assert every.weights(Target(label, weight, confidence, valid))[0] == 3 / 2


def test_class_weights_count_in_both_sums():
    logits, label, confidence = toy_unsup()
    loss = weighted_unsup_loss(logits, label, confidence, 0.97, class_weight=[1, 2, 4])
    assert loss.item() == pytest.approx((.2 + 2 * .4 + 4 * 1.0 + 0.5 * 2 * .6) / (1 + 2 + 4 + 2))
    with pytest.raises(ValueError, match='unsup_loss.class_weight has 2 weights for 3 classes'):
        weighted_unsup_loss(logits, label, confidence, 0.97, class_weight=[1, 2])


@pytest.mark.parametrize('mean_over', ['positive', 'valid'])
def test_an_empty_loss_is_zero_with_a_graph(mean_over):
    logits, label, confidence = toy_unsup()
    sure = (1000 * F.one_hot(torch.tensor([[[1, 2]]]), 3)).movedim(-1, 1).float().requires_grad_()  # every loss is 0
    for args in ((logits, torch.full_like(label, 255), confidence), (logits, label, 0 * confidence),
                 (sure, torch.tensor([[[1, 2]]]), torch.ones(1, 1, 2))):
        loss = weighted_unsup_loss(*args, 0.97, mean_over=mean_over)
        loss.backward()
        assert loss == 0 and (args[0].grad == 0).all()


def test_images_without_label_do_not_disturb():
    logits, label, confidence = toy_unsup()
    expected = weighted_unsup_loss(logits[:1], label[:1], confidence[:1], 0.97)
    label[1] = 255
    assert weighted_unsup_loss(logits, label, confidence, 0.97) == expected


def test_logits_are_resized_in_float32():
    logits, label, confidence = torch.randn(2, 3, 5, 4).bfloat16(), torch.randint(3, (2, 9, 8)), torch.rand(2, 9, 8)
    for align_corners in (True, False):
        loss = weighted_unsup_loss(logits, label, confidence, 0.3, align_corners=align_corners)
        resized = F.interpolate(logits.float(), (9, 8), mode='bilinear', align_corners=align_corners)
        share = (confidence >= 0.3).float().mean(dim=(1, 2), keepdim=True)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, (share * F.cross_entropy(resized, label, reduction='none')).mean())


def test_a_diverged_network_shows():
    logits, label, confidence = toy_unsup()
    logits.data[0, :, 0, 0] = math.nan
    assert weighted_unsup_loss(logits, label, confidence, 0.97).isnan()


def toy_prototypes():
    return torch.tensor([[1., 0], [0, 0], [0, 2]]), torch.tensor([True, False, True])


def test_update_prototypes():
    """Section 11 item 4, the pixels of both ranks in one process."""
    prototypes, seen = toy_prototypes()
    features = torch.tensor([[0., 2], [2, 4], [3, -3], [4, 0], [9, 9]])
    assert update_prototypes(prototypes, seen, features, torch.tensor([0, 0, 1, 0, 255]), 0.99) == 0
    torch.testing.assert_close(prototypes, torch.tensor([[1.01, 0.02], [3, -3], [0, 2]]))
    assert seen.all()
    # A vector whose sum is 0 has been seen all the same.
    update_prototypes(prototypes, seen, torch.ones(1, 2), torch.tensor([1]), 0.99)
    torch.testing.assert_close(prototypes, torch.tensor([[1.01, 0.02], [2.98, -2.96], [0, 2]]))


def test_update_class_by_class():
    prototypes, features, label = torch.randn(4, 6), torch.randn(500, 6, requires_grad=True), torch.randint(4, (500, ))
    label[label == 3] = 255
    seen = torch.tensor([True, False, True, False])
    before = prototypes.clone()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        update_prototypes(prototypes, seen, features, label, 0.9)
    for c in range(3):
        mean = features[label == c].mean(0).detach()
        torch.testing.assert_close(prototypes[c], mean if c == 1 else 0.9 * before[c] + 0.1 * mean)
    assert torch.equal(prototypes[3], before[3]) and seen.tolist() == [True, True, True, False]


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_classes_with_a_mean_that_is_not_finite_stay(value):
    prototypes, seen = toy_prototypes()
    features = torch.tensor([[value, 2], [4, 0], [3, -3], [value, value], [0, 4]])
    assert update_prototypes(prototypes, seen, features, torch.tensor([0, 0, 1, 255, 2]), 0.99) == 1
    torch.testing.assert_close(prototypes, torch.tensor([[1, 0], [3, -3], [0, 2.02]]))
    assert update_prototypes(prototypes, seen, features[3:4], torch.tensor([1]), 0.99) == 1
    assert prototypes[1].tolist() == [3, -3]


RANK = """
import os, sys, torch, torch.distributed as dist
from mmseg_semi.models.losses.collaborative import update_prototypes
torch.set_num_threads(1)
dist.init_process_group('gloo')
first = dist.get_rank() == 0
prototypes, seen = torch.tensor([[1., 0], [0, 0], [0, 2]]), torch.tensor([True, False, True])
features = torch.tensor([[0., 2], [2, 4], [3, -3]]) if first else torch.tensor([[4., 0], [8, 8]])
update_prototypes(prototypes, seen, features, torch.tensor([0, 0, 1] if first else [0, 255]), 0.99)
after, all_seen = prototypes.clone(), seen.clone()
# Rank 0 has no pixel and rank 1 one that is not finite, which neither may apply.
features = features if first else torch.tensor([[torch.nan, 0], [1, 1]])
update_prototypes(prototypes, seen, features, torch.tensor([255] * 3 if first else [0, 1]), 0.99)
torch.save(dict(after=after, seen=all_seen, last=prototypes), f'{sys.argv[1]}.{dist.get_rank()}')
"""


@pytest.mark.slow
def test_two_ranks_apply_the_mean_of_the_union(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    processes = [
        subprocess.Popen([sys.executable, '-W', 'ignore', '-c', RANK, str(tmp_path / 'out')], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, env=dict(
                             os.environ, RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
                             PYTHONPATH=str(ROOT))) for rank in range(2)]
    outputs = [p.communicate(timeout=120)[0] for p in processes]  # a hang fails here
    assert all(p.returncode == 0 for p in processes), '\n'.join(outputs)
    for rank in range(2):
        result = torch.load(f'{tmp_path}/out.{rank}', weights_only=True)
        torch.testing.assert_close(result['after'], torch.tensor([[1.01, 0.02], [3, -3], [0, 2]]))
        torch.testing.assert_close(result['last'], torch.tensor([[1.01, 0.02], [2.98, -2.96], [0, 2]]))
        assert result['seen'].all()


def test_values_are_never_read(monkeypatch):
    """Tensors of the meta device have no values: ``.item()``, ``nonzero`` and boolean masks fail on them."""
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: contextlib.nullcontext())  # knows no meta device
    logits = torch.empty(2, 3, 5, 4, device='meta', requires_grad=True)
    features = torch.empty(2, 6, 5, 4, device='meta')
    prototypes, seen = torch.empty(3, 6, device='meta'), SEEN.to('meta')
    for unseen in ('mask', 'zero'):
        maps = representation_prediction(features, prototypes, seen, (9, 8), 0.1, unseen)
    for variant in ('ori', 'mix', 'cross'):
        label, confidence, label_con, _ = collaborate(*maps, *maps, variant)
        assert nearest_grid(label_con, (5, 4)).shape == (2, 5, 4)
    target = Target(label, confidence, confidence, confidence > 0)
    for numerator, mean_over in (('all', 'positive'), ('valid', 'valid')):
        loss = ImageWeightedCrossEntropy(0.97, numerator, mean_over, [1, 2, 3]).to('meta')
        loss(logits, target, True).backward()
    pixels = features.movedim(1, -1).flatten(0, 2)
    assert update_prototypes(prototypes, seen, pixels, torch.empty(40, dtype=torch.long, device='meta'), 0.9).is_meta
