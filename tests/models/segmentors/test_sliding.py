"""Sliding windows: mmseg's own result for logits, a loop over windows for probabilities, settings that are refused."""
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from torch import nn

from mmseg_semi.models.segmentors.sliding import window_bounds
from mmseg_semi.registry import MODELS

SLIDE = dict(mode='slide', crop_size=(33, 25), stride=(22, 10))
SIZES = [(33, 25), (60, 83), (20, 24), (20, 83), (61, 25)]  # a window, uneven, smaller, smaller along one side


@pytest.fixture
def make_model(tiny_cfg):
    """Function that builds a segmentor for prediction with a test_cfg."""

    def make(kind, test_cfg, **changes):
        torch.manual_seed(0)
        cfg = dict(tiny_cfg, type=kind, test_cfg=test_cfg, **changes)
        cfg['auxiliary_head'] = None
        if 'Semi' not in kind:
            cfg = {k: v for k, v in cfg.items() if k not in ('labeler', 'branches', 'joint_forward')}
            cfg['data_preprocessor'] = dict(type='SegDataPreProcessor')
        model = MODELS.build(ConfigDict(cfg)).eval()
        nn.init.normal_(model.decode_head.conv_seg.weight)  # logits that differ from pixel to pixel
        return model

    return make


def metas(size, count=2):
    return [dict(ori_shape=size, img_shape=size, pad_shape=size) for _ in range(count)]


@pytest.mark.parametrize('size', SIZES)
@torch.no_grad()
def test_logits_as_mmseg(make_model, size):
    model = make_model('SlidingEncoderDecoder', SLIDE)
    images = torch.randn(2, 3, *size)
    expected = EncoderDecoder.slide_inference(model, images, metas(size))
    torch.testing.assert_close(model.inference(images, metas(size)), expected)
    if size == (60, 83):
        whole = make_model('EncoderDecoder', dict(mode='whole'))
        assert not torch.allclose(whole.inference(images, metas(size)), expected)


@pytest.mark.parametrize('windows', ['shifted', 'cut'])
@pytest.mark.parametrize('size', SIZES)
@torch.no_grad()
def test_probabilities_pixel_by_pixel(make_model, size, windows):
    """Each pixel: the mean over the windows that hold it, listed by hand."""
    model = make_model('SlidingEncoderDecoder', dict(SLIDE, slide_average='prob', slide_windows=windows))
    images = torch.randn(1, 3, *size)
    total, count = torch.zeros(1, 4, *size), torch.zeros(size)
    corners = []
    for length, crop, stride in zip(size, (33, 25), (22, 10), strict=True):
        if windows == 'cut':
            corners.append([(at, min(at + crop, length)) for at in range(length) if at % stride == 0])
        else:
            starts = {min(at, max(length - crop, 0)) for at in range(0, length + stride, stride)}
            corners.append([(at, min(at + crop, length)) for at in sorted(starts)])
    for top, bottom in corners[0]:
        for left, right in corners[1]:
            window = images[:, :, top:bottom, left:right]
            logits = model.encode_decode(window, [dict(img_shape=window.shape[2:])])
            total[:, :, top:bottom, left:right] += logits.softmax(1)
            count[top:bottom, left:right] += 1
    assert (count > 0).all()
    result = model.inference(images, metas(size, 1))
    torch.testing.assert_close(result.softmax(1), total / count)
    assert result.isfinite().all()


def test_windows_of_the_published_protocols():
    """UniMatch and U2PL on a Cityscapes image of 1024 x 2048."""
    assert list(window_bounds(2048, 801, 534, 'cut')) == [(0, 801), (534, 1335), (1068, 1869), (1602, 2048)]
    assert list(window_bounds(1024, 801, 534, 'cut')) == [(0, 801), (534, 1024)]
    assert list(window_bounds(2048, 769, 513, 'shifted')) == [(0, 769), (513, 1282), (1026, 1795), (1279, 2048)]
    assert list(window_bounds(1024, 769, 513, 'shifted')) == [(0, 769), (255, 1024)]
    assert list(window_bounds(700, 769, 513, 'shifted')) == [(0, 700)]


@torch.no_grad()
def test_a_probability_of_zero_stays_finite(make_model):
    model = make_model('SlidingEncoderDecoder', dict(SLIDE, slide_average='prob'))
    model.encode_decode = lambda window, metas: torch.tensor([200., 0, 0, 0])[None, :, None, None].expand(
        1, 4, *window.shape[2:])
    result = model.inference(torch.zeros(1, 3, 60, 83), metas((60, 83), 1))
    assert result.isfinite().all() and (result.argmax(1) == 0).all()


@torch.no_grad()
def test_both_networks_of_a_semi_supervised_model_slide(make_model):
    """The teacher and the student predict by the same windows, each with its own weights."""
    test_cfg = dict(SLIDE, slide_average='prob')
    plain = make_model('SlidingEncoderDecoder', test_cfg)
    model = make_model('SemiEncoderDecoder', test_cfg, eval_with='teacher')
    state = plain.state_dict()
    model.load_state_dict({**state, **{f'teacher.{name}': value for name, value in state.items()}}, strict=False)
    images, size = torch.randn(1, 3, 60, 83), (60, 83)
    expected = plain.inference(images, metas(size, 1))
    torch.testing.assert_close(model.inference(images, metas(size, 1)), expected)
    nn.init.zeros_(model.teacher.decode_head.conv_seg.weight)
    assert not torch.allclose(model.inference(images, metas(size, 1)), expected)
    model.eval_with = 'student'
    torch.testing.assert_close(model.inference(images, metas(size, 1)), expected)


def test_one_option_turns_windows_off(make_model):
    images, size = torch.randn(1, 3, 60, 83), (60, 83)
    windows = make_model('SlidingEncoderDecoder', dict(SLIDE, slide_average='prob', slide_windows='cut'))
    whole = make_model('SlidingEncoderDecoder', dict(SLIDE, slide_average='prob', slide_windows='cut', mode='whole'))
    whole.load_state_dict(windows.state_dict())
    torch.testing.assert_close(whole.inference(images, metas(size, 1)), windows.encode_decode(images, metas(size, 1)))


@pytest.mark.parametrize('test_cfg, changes, message', [
    (dict(SLIDE, slide_average='mean'), {}, "slide_average must be one of .*found 'mean'"),
    (dict(SLIDE, slide_windows='ragged'), {}, "slide_windows must be one of .*found 'ragged'"),
    (dict(mode='slide', crop_size=(33, 33), stride=(22, 34)), {}, r'pixels are left out: found .*\(22, 34\)'),
    (dict(mode='slide', crop_size=(33, 33)), {}, 'needs .* a stride'),
    (dict(SLIDE, slide_average='prob'), dict(out_channels=1, num_classes=2), 'out_channels=1'),
])
def test_refuses(make_model, tiny_cfg, test_cfg, changes, message):
    tiny_cfg.decode_head.update(changes)
    with pytest.raises(ValueError, match=message):
        make_model('SlidingEncoderDecoder', test_cfg)
