import pytest
import torch

from mmseg_semi.models.losses import OHEMCrossEntropyLoss, PseudoLabelCrossEntropy, ValidCrossEntropyLoss
from mmseg_semi.structures import Target

LABEL = torch.zeros(2, 9, 8, dtype=torch.long, device='meta')


@pytest.mark.parametrize('loss', [OHEMCrossEntropyLoss(min_kept=5), OHEMCrossEntropyLoss(), ValidCrossEntropyLoss(),
                                  ValidCrossEntropyLoss(class_weight=[1, 2, 3, 4])])
def test_values_are_never_read(loss):
    """Tensors of the meta device have no values: ``.item()``, ``nonzero`` and boolean masks fail on them."""
    logits = torch.empty(2, 4, 9, 8, device='meta', requires_grad=True)
    loss.to('meta')(logits, LABEL).backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize('norm', ['valid', 'kept', 'u2pl'])
def test_values_are_never_read_of_pseudo_labels(norm):
    logits = torch.empty(2, 4, 3, 4, device='meta', requires_grad=True)
    target = Target(LABEL, LABEL.float(), LABEL.float(), LABEL.bool())
    loss = PseudoLabelCrossEntropy(norm, class_weight=[1, 2, 3, 4]).to('meta')
    loss(logits, target, align_corners=False).backward()
    assert logits.grad.shape == logits.shape
