import pytest
import torch

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import SemiBatch

CFG = dict(type='SemiSegDataPreProcessor', mean=[100., 110., 120.], std=[50., 60., 70.], size=(33, 33))


def test_rgb_in_0_1_padding_tracked_and_normalized_to_zero(make_batch):
    preprocessor = MODELS.build(CFG)
    batch = make_batch()
    bgr = batch['unlabeled']['inputs'][1].clone()  # 33 x 29
    out = preprocessor(batch, True)
    data = out['inputs']
    assert isinstance(data, SemiBatch)
    assert data.labeled.shape == data.weak.shape == (2, 3, 33, 33)
    torch.testing.assert_close(data.weak[1, :, :, :29], bgr.flip(0).float() / 255)
    assert data.valid[0].all() and data.valid[1, :, :29].all() and not data.valid[1, :, 29:].any()
    normalized = preprocessor.normalize(data.weak)
    assert normalized[1, :, :, 29:].abs().max() < 1e-6
    expected = (bgr.flip(0).float() - torch.tensor(CFG['mean'])[:, None, None]) / torch.tensor(
        CFG['std'])[:, None, None]
    torch.testing.assert_close(normalized[1, :, :, :29], expected, atol=1e-5, rtol=1e-5)
    labels = out['data_samples'][1].gt_sem_seg.data
    assert labels.shape == (1, 33, 33) and (labels[:, :, 29:] == 255).all()


def test_bottom_padding_is_not_confused_with_right_padding(make_batch):
    data = MODELS.build(CFG)(make_batch(sizes=((20, 33), )), True)['inputs']
    assert data.valid[:, :20].all() and not data.valid[:, 20:].any()


def test_padding_value_and_label_are_options(make_batch):
    preprocessor = MODELS.build(dict(CFG, pad_val=2., seg_pad_val=0))
    out = preprocessor(make_batch(sizes=((33, 29), )), True)
    torch.testing.assert_close(preprocessor.normalize(out['inputs'].weak)[..., 29:], torch.full((2, 3, 33, 4), 2.))
    assert (out['data_samples'][0].gt_sem_seg.data[..., 29:] == 0).all()


@pytest.mark.parametrize('divisor, shape', [(None, (33, 33)), (8, (40, 40))])
def test_without_a_size_images_are_padded_to_the_largest_and_a_divisor(make_batch, divisor, shape):
    preprocessor = MODELS.build(dict(CFG, size=None, size_divisor=divisor))
    data = preprocessor(make_batch(sizes=((33, 29), (20, 33))), True)['inputs']
    assert data.weak.shape[2:] == data.labeled.shape[2:] == data.valid.shape[1:] == shape
    assert data.valid[0, :33, :29].all() and data.valid[0].sum() == 33 * 29


def test_test_images_are_padded_as_test_cfg_says(make_batch):
    preprocessor = MODELS.build(dict(CFG, test_cfg=dict(size_divisor=16)))
    one = {key: values[:1] for key, values in make_batch()['labeled'].items()}
    assert preprocessor(one, False)['inputs'].shape == (1, 3, 48, 48)


@pytest.mark.parametrize('options', [
    {}, dict(pad_val=2., seg_pad_val=0), dict(size=None, size_divisor=8), dict(std=[1., 1., 1.], bgr_to_rgb=False)])
def test_a_plain_batch_equals_mmsegs_own_preprocessor(make_batch, options):
    plain = MODELS.build({**CFG, 'type': 'SegDataPreProcessor', 'bgr_to_rgb': True, 'seg_pad_val': 255, **options})
    ours = MODELS.build({**CFG, **options})
    mine, theirs = ours(make_batch()['labeled'], True), plain(make_batch()['labeled'], True)
    assert torch.equal(mine['inputs'], theirs['inputs'])
    assert torch.equal(mine['data_samples'][1].gt_sem_seg.data, theirs['data_samples'][1].gt_sem_seg.data)


@pytest.mark.parametrize('bad', [dict(mean=[1., 2.]), dict(std=[1., 0., 1.])])
def test_bad_statistics_are_named(bad):
    with pytest.raises(ValueError, match='mean and std'):
        MODELS.build(dict(CFG, **bad))


@pytest.mark.parametrize('kind', ['SemiSegDataPreProcessor', 'GuidedSegDataPreProcessor'])
@pytest.mark.parametrize('size', [(40, 33), (33, 34)])
def test_an_image_larger_than_the_size_tells_what_to_do(make_batch, kind, size):
    words = rf'has \({size[0]}, {size[1]}\) pixels.*size is \(33, 33\).*RandomCrop\(crop_size=\(33, 33\)\)'
    with pytest.raises(ValueError, match=words):
        MODELS.build(dict(CFG, type=kind))(make_batch(sizes=((33, 33), size)), True)


@pytest.mark.parametrize('counts,missing', [((0, 2), 'labeled'), ((2, 0), 'unlabeled')])
def test_an_empty_group_tells_which_pipeline_is_wrong(make_batch, counts, missing):
    with pytest.raises(ValueError, match=f'no {missing} image.*LoadAnnotations'):
        MODELS.build(CFG)(make_batch(*counts), True)
