"""CSS's second pair of maps goes where the first one goes."""
import pytest
import torch

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import TwoSpaceTarget, View


@pytest.mark.parametrize('config', [
    dict(type='RandomScaleCrop', ratio_range=(0.5, 0.9)), dict(type='RandomScaleCrop', ratio_range=(1.1, 2.)),
    dict(type='RandomMirror', prob=1.), dict(type='CutMix', prob=1.), dict(type='ClassMix', prob=1.),
    dict(type='Cutout', prob=1.), dict(type='PatchMask', block_size=6, loss_region='masked')], ids=lambda c: c['type'])
def test_both_pairs_of_maps_move_alike(config):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(4, (3, 24, 20), generator=generator)
    confidence = torch.rand(3, 24, 20, generator=generator)
    valid = torch.ones(3, 24, 20, dtype=torch.bool)
    valid[1, :, 15:] = False
    target = TwoSpaceTarget(label=label, weight=valid.float(), confidence=confidence, valid=valid,
                            contrast_label=label.clone(), contrast_confidence=confidence.clone())
    out = BATCH_AUGMENTS.build(config)(View(torch.rand(3, 3, 24, 20, generator=generator), target), generator).target
    assert type(out) is TwoSpaceTarget
    assert torch.equal(out.contrast_label, out.label) and torch.equal(out.contrast_confidence, out.confidence)
    changed = [not torch.equal(getattr(out, name), getattr(target, name)) for name in ('label', 'weight', 'valid')]
    assert any(changed)
