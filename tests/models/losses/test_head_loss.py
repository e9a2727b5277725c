import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample

from mmseg_semi.models.losses.head_loss import head_loss

CE = dict(type='CrossEntropyLoss', avg_non_ignore=True)
LOSSES = {
    'one': CE,
    'two names': [CE, dict(type='ValidCrossEntropyLoss', loss_name='loss_valid', loss_weight=0.3)],
    'one name twice': [CE, dict(type='ValidCrossEntropyLoss', loss_weight=0.3)],
}


def case(cls=FCNHead, **kwargs):
    generator = torch.Generator().manual_seed(0)
    head = cls(in_channels=3, channels=4, num_classes=4, num_convs=1, norm_cfg=dict(type='BN'), align_corners=True,
               **kwargs)
    labels = torch.randint(4, (2, 9, 8), generator=generator)
    labels[0, :3] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    return head, torch.randn(2, 4, 3, 3, generator=generator, requires_grad=True), labels, samples


@pytest.mark.parametrize('name', LOSSES)
def test_equals_the_heads_own(name):
    head, logits, labels, samples = case(loss_decode=LOSSES[name])
    mine, theirs = head_loss(head, logits, labels, samples), head.loss_by_feat(logits, samples)
    assert list(mine) == list(theirs)
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key].squeeze(), msg=key)
    gradients = [torch.autograd.grad(sum(v for k, v in losses.items() if 'loss' in k), logits)[0]
                 for losses in (mine, theirs)]
    torch.testing.assert_close(*gradients)


def test_without_any_label():
    head, logits, labels, samples = case(loss_decode=dict(type='ValidCrossEntropyLoss'))
    losses = head_loss(head, logits, torch.full_like(labels, 255), samples)
    assert losses['acc_seg'] == 0 and losses['loss_ce'] == 0 and losses['loss_ce'].requires_grad


def test_a_head_with_rules_of_its_own_keeps_them():

    class Own(FCNHead):

        def loss_by_feat(self, seg_logits, batch_data_samples):
            return {'loss_own': seg_logits.sum()}

    head, logits, labels, samples = case(Own)
    assert list(head_loss(head, logits, labels, samples)) == ['loss_own']
    head, logits, labels, samples = case(sampler=dict(type='OHEMPixelSampler', thresh=0.2, min_kept=2))
    mine, theirs = head_loss(head, logits, labels, samples), head.loss_by_feat(logits, samples)
    assert mine['loss_ce'] == theirs['loss_ce'] != case()[0].loss_by_feat(logits, samples)['loss_ce']
