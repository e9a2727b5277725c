import pytest
import torch

from mmseg_semi.registry import BATCH_AUGMENTS
from mmseg_semi.structures import Target, View


@pytest.mark.parametrize('config', [
    dict(type='CutMix'), dict(type='CutMix', box='area_ratio', per='image', partner='shuffle'), dict(type='ClassMix'),
    dict(type='ColorJitter'), dict(type='RandomGrayscale'), dict(type='GaussianBlur'),
    dict(type='RandomMirror'), dict(type='RandomScaleCrop'),
    dict(type='PatchMask', block_size=5, loss_region='masked'),
    dict(type='PatchMask', block_size=5, fill='mix', ratio_mode='exact'),
    dict(type='PatchMask', block_size=5, fill='noise'), dict(type='Cutout')], ids=lambda c: c['type'])
def test_values_on_the_device_are_never_read(config, monkeypatch):
    """Tensors of the meta device have no values: ``.item()``, ``nonzero`` and boolean masks fail on them."""
    generator = torch.Generator
    monkeypatch.setattr(torch, 'Generator', lambda device='cpu': generator())  # the meta device has none
    label = torch.zeros(3, 24, 20, dtype=torch.long, device='meta')
    view = View(torch.empty(3, 3, 24, 20, device='meta'), Target(label, label.float(), label.float(), label.bool()))
    out = BATCH_AUGMENTS.build(config)(view, torch.Generator().manual_seed(0))
    for a, b in zip([out.images, *vars(out.target).values()], [view.images, *vars(view.target).values()], strict=True):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
