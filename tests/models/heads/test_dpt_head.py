import pytest
import torch
from mmseg.models.decode_heads import DPTHead

from mmseg_semi.models.heads import FeatureMapDPTHead

CFG = dict(in_channels=(8, ) * 4, in_index=(0, 1, 2, 3), input_transform='multiple_select', embed_dims=8,
           post_process_channels=[4, 4, 8, 8], channels=6, num_classes=3, norm_cfg=None, dropout_ratio=0)


def maps(batch):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, 8, 3, 5, generator=generator) for _ in range(4))


@pytest.mark.parametrize('batch', [1, 2, 3])
def test_it_is_mmsegs_head_on_maps(batch):
    head = FeatureMapDPTHead(**CFG).eval()
    reference = DPTHead(**CFG).eval()
    reference.load_state_dict(head.state_dict())
    tokens = torch.randn(batch, 8)
    logits = head(maps(batch))
    assert logits.shape == (batch, 3, 32, 48)
    assert logits.equal(reference([(features, tokens) for features in maps(batch)]))


@pytest.mark.parametrize('batch', [2, 3])
def test_mmsegs_head_cannot_read_maps(batch):
    """The trap that this head is for; should mmseg mend it, the head can go."""
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError, ValueError)):
        DPTHead(**CFG).eval()(maps(batch))


def test_the_class_token_cannot_be_read():
    with pytest.raises(ValueError, match="readout_type must be 'ignore', found 'project'"):
        FeatureMapDPTHead(readout_type='project', **CFG)
