import pytest
import torch
from mmseg.models.decode_heads import SegmenterMaskTransformerHead
from torch import nn

from mmseg_semi.models.feature_tap import FeatureTap, classifier_path, last_layer
from mmseg_semi.registry import MODELS


class OwnHead(nn.Module):
    """A head in a style of its own: the classifier has no known name, and an edge map stands beside it."""

    def __init__(self, **names):
        super().__init__()
        self.out_channels = 4
        self.mix = nn.Conv2d(6, 5, 3, padding=1)
        self.score = nn.Conv2d(5, 4, 1)
        self.edge = nn.Conv2d(5, 1, 1)
        for name, module in names.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.score(self.mix(x))


def test_the_last_convolution_with_a_map_per_class():
    head = OwnHead()
    tap = FeatureTap(head)
    x = torch.randn(2, 6, 3, 3)
    logits = head(x)
    assert tap.channels == 5
    feature = tap.pop()
    assert feature.equal(head.mix(x)) and logits.equal(head.score(feature))


@pytest.mark.parametrize('name', ['conv_seg', 'linear_pred'])
def test_known_names_come_first(name):
    assert classifier_path(OwnHead(**{name: nn.Conv2d(7, 4, 1), 'z': nn.Conv2d(8, 4, 1)})) == name


def test_the_heads_own_word_comes_before_all():
    head = OwnHead(conv_seg=nn.Conv2d(7, 4, 1))
    head.tap_path = 'mix'
    assert FeatureTap(head).channels == 6
    assert FeatureTap(head, find=last_layer).channels == 7
    assert FeatureTap(head, 'edge').channels == 5


def test_a_head_without_convolution_at_its_end():
    head = OwnHead(score=nn.Linear(5, 4))
    with pytest.raises(ValueError, match='OwnHead has no conv_seg .* 4 outputs.*set model.tap to the path'):
        FeatureTap(head)


@pytest.mark.parametrize('path', [None, 'dec_proj'])
def test_a_head_without_any_convolution_cannot_be_trained(path):
    head = SegmenterMaskTransformerHead(8, 8, 1, 2, 8, channels=8, num_classes=4, dropout_ratio=0)
    with pytest.raises(ValueError, match='SegmenterMaskTransformerHead has no convolution: the method cannot train '
                                         'such a head; take another head, or a method that reads logits only'):
        FeatureTap(head, path)


# Every head of mmseg that returns one map: the tapped module, and the channels in front of it.
ONE_MAP = dict(in_channels=8, channels=8, num_classes=4, dropout_ratio=0)
LIST = dict(in_channels=[8, 8, 8, 8], in_index=[0, 1, 2, 3], channels=8, num_classes=4, dropout_ratio=0)


@pytest.mark.parametrize('cfg', [
    dict(type='FCNHead', **ONE_MAP), dict(type='PSPHead', **ONE_MAP), dict(type='ASPPHead', **ONE_MAP),
    dict(type='DepthwiseSeparableASPPHead', c1_in_channels=8, c1_channels=4, **ONE_MAP),
    dict(type='UPerHead', **LIST), dict(type='SegformerHead', **LIST), dict(type='FPNHead', feature_strides=[4] * 4,
                                                                             **LIST),
    dict(type='LightHamHead', ham_channels=8, norm_cfg=dict(type='GN', num_groups=2), **LIST),
    dict(type='NLHead', **ONE_MAP), dict(type='GCHead', **ONE_MAP), dict(type='DepthwiseSeparableFCNHead',
                                                                         dw_act_cfg=None, **ONE_MAP),
    dict(type='SETRUPHead', **ONE_MAP), dict(type='EMAHead', ema_channels=8, num_bases=2, num_stages=1, **ONE_MAP),
], ids=lambda cfg: cfg['type'])
def test_the_feature_of_mmsegs_heads_makes_their_logits(cfg):
    head = MODELS.build(cfg).eval()
    tap = FeatureTap(head)
    logits = head([torch.randn(2, 8, 6, 6) for _ in range(4)])
    feature = tap.pop()
    assert feature.shape[:2] == (2, tap.channels) and tap.channels == 8
    again = head.cls_seg(feature)
    # Some upsample behind the classifier.
    assert logits.allclose(again, atol=1e-6) or logits.shape[2:] > again.shape[2:]
