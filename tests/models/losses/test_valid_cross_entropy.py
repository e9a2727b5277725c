import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_semi.models.losses import ValidCrossEntropyLoss


def case():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    label = torch.randint(0, 4, (2, 5, 6))
    label[:, :2] = 255
    return logits, label


def test_equals_torch_and_mmseg():
    logits, label = case()
    loss = ValidCrossEntropyLoss(loss_weight=0.5)(logits, label)
    expected = 0.5 * F.cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*torch.autograd.grad(loss, logits), *torch.autograd.grad(expected, logits))
    theirs = MODELS.build(dict(type='CrossEntropyLoss', avg_non_ignore=True))
    torch.testing.assert_close(loss, 0.5 * theirs(logits, label, ignore_index=255))


def test_pixel_weight_and_ignore_index():
    logits, label = case()
    label[label == 255] = 9
    weight = torch.rand(label.shape)
    loss = ValidCrossEntropyLoss()(logits, label, weight=weight, ignore_index=9)
    terms = [weight[n, r, c] * F.cross_entropy(logits[n, :, r, c], label[n, r, c])
             for n in range(2) for r in range(2, 5) for c in range(6)]
    torch.testing.assert_close(loss, sum(terms) / len(terms))


def test_everything_ignored_is_a_connected_zero():
    logits, label = case()
    loss = ValidCrossEntropyLoss()(logits, torch.full_like(label, 255))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_float32_under_autocast():
    logits, label = case()
    with torch.autocast('cpu', torch.bfloat16):
        loss = ValidCrossEntropyLoss()(logits.detach().bfloat16(), label)
        exact = ValidCrossEntropyLoss()(logits, label)
    assert loss.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(exact, F.cross_entropy(logits, label, ignore_index=255))
    torch.testing.assert_close(loss, F.cross_entropy(logits.bfloat16().float(), label, ignore_index=255))


def test_class_weights_are_torchs():
    logits, label = case()
    label[0, 0, 0] = 255
    weight = [0.01, 2., 0.5, 0.3]
    loss = ValidCrossEntropyLoss(class_weight=weight)
    expected = F.cross_entropy(logits, label, weight=torch.tensor(weight), ignore_index=255)
    torch.testing.assert_close(loss(logits, label), expected)
    assert loss(logits, torch.full_like(label, 255)) == 0
    one = torch.full_like(label, 255)
    one[0, 1, 1] = 0  # a divisor below 1
    torch.testing.assert_close(loss(logits, one), F.cross_entropy(logits, one, ignore_index=255))
    assert 'class_weight' not in loss.state_dict()
    with pytest.raises(ValueError, match='3 weights for 4 classes'):
        ValidCrossEntropyLoss(class_weight=[1, 1, 1])(logits, label)
    with pytest.raises(ValueError, match="list of numbers, got 'weights.npy'"):
        ValidCrossEntropyLoss(class_weight='weights.npy')
    with pytest.raises(ValueError, match='positive numbers, got'):
        ValidCrossEntropyLoss(class_weight=[1, 0, 1, 1])


def test_unsupported_arguments():
    logits, label = case()
    with pytest.raises(ValueError, match='3.0'):
        ValidCrossEntropyLoss()(logits, label, avg_factor=3.0)
    with pytest.raises(ValueError, match="'sum'"):
        ValidCrossEntropyLoss()(logits, label, reduction_override='sum')
    with pytest.raises(ValueError, match='loss_weight.*-1'):
        ValidCrossEntropyLoss(loss_weight=-1)
    with pytest.raises(ValueError, match="'ce'"):
        ValidCrossEntropyLoss(loss_name='ce')


@pytest.mark.parametrize('loss, key', [(dict(type='ValidCrossEntropyLoss'), 'loss_ce'),
                                       (dict(type='OHEMCrossEntropyLoss', min_kept=10), 'loss_ohem')])
def test_in_a_head(loss, key):
    head = FCNHead(in_channels=3, channels=4, num_classes=4, num_convs=1, norm_cfg=dict(type='BN'), loss_decode=loss,
                   align_corners=True)
    _, label = case()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[i:i + 1])) for i in range(2)]
    losses = head.loss_by_feat(head((torch.randn(2, 3, 3, 3), )), samples)
    assert losses[key] > 0
    losses[key].backward()
    assert head.conv_seg.weight.grad.abs().sum() > 0
