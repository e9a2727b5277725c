import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from mmseg_semi.datasets import CheckSegMap, RandomScale


def results(height=30, width=40, **kwargs):
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    seg = rng.integers(0, 5, (height, width), dtype=np.uint8)
    return dict(dict(img=img, img_shape=(height, width), ori_shape=(height, width), gt_seg_map=seg,
                     seg_fields=['gt_seg_map'], img_path='i/a.jpg', seg_map_path='m/a.png'), **kwargs)


def test_check_accepts():
    good = results()
    good['gt_seg_map'][3:5] = 255
    before = good['gt_seg_map'].copy()
    assert CheckSegMap(5)(good) is good
    assert (good['gt_seg_map'] == before).all()


@pytest.mark.parametrize('value, ignore', [(5, 255), (254, 255), (255, 254)])
def test_check_refuses_a_label(value, ignore):
    bad = results()
    bad['gt_seg_map'][7, 9] = value
    with pytest.raises(ValueError, match=rf'm/a.png holds labels \[{value}\]; expected 0..4 or {ignore}'):
        CheckSegMap(5, ignore)(bad)
    bad['gt_seg_map'][7, 9] = 0
    CheckSegMap(5, ignore)(bad)


def test_check_lets_images_without_a_mask_pass():
    """As mmseg's inferencers send them through the test pipeline."""
    image = dict(img=np.zeros((4, 4, 3), np.uint8), img_path='i/a.jpg', ori_shape=(4, 4))
    assert CheckSegMap(5)(image) is image


def test_check_compares_files_also_after_a_resize():
    CheckSegMap(5)(results(img_shape=(15, 20)))


def test_check_refuses_a_size():
    with pytest.raises(ValueError, match=r'm/a.png is \(30, 41\), its image i/a.jpg is \(30, 40\)'):
        CheckSegMap(5)(results(gt_seg_map=np.zeros((30, 41), np.uint8)))
    with pytest.raises(ValueError, match=r'm/a.png is \(30, 40, 3\)'):
        CheckSegMap(5)(results(gt_seg_map=np.zeros((30, 40, 3), np.uint8)))
    with pytest.raises(ValueError, match='num_classes must be positive, got 0'):
        CheckSegMap(0)


def test_scale_is_relative_and_shared():
    np.random.seed(0)
    transform = RandomScale((0.5, 2.0))
    factors = []
    for _ in range(50):
        height, width = np.random.randint(200, 400, 2)
        out = transform(results(height, width))
        assert out['img'].shape[:2] == out['gt_seg_map'].shape == out['img_shape']
        fy, fx = out['img'].shape[0] / height, out['img'].shape[1] / width
        assert abs(fy - fx) < 1 / 200
        factors.append(fy)
        assert set(np.unique(out['gt_seg_map'])) <= set(range(5))
    assert 0.49 < min(factors) < 0.7 and 1.8 < max(factors) < 2.01
    assert 1.1 < np.mean(factors) < 1.4


def test_scale_without_mask_and_exact_size():
    image = results(33, 41)
    del image['gt_seg_map'], image['seg_fields']
    assert RandomScale((1.5, 1.5))(image)['img'].shape == (50, 62, 3)
    same = results()
    out = RandomScale((1, 1))(dict(same))
    assert (out['img'] == same['img']).all() and (out['gt_seg_map'] == same['gt_seg_map']).all()


def test_halves_law():
    np.random.seed(0)
    transform = RandomScale((0.5, 2.0), law='halves')
    shapes = np.array([transform(dict(results(), img=np.zeros((100, 10), np.uint8)))['img'].shape[0]
                       for _ in range(2000)]) / 100
    small, large = shapes[shapes < 1], shapes[shapes > 1]
    assert abs(len(small) / 2000 - 0.5) < 0.04
    assert abs(small.mean() - 0.75) < 0.02 and abs(large.mean() - 1.5) < 0.03
    assert shapes.min() >= 0.5 and shapes.max() <= 2


@pytest.mark.parametrize('kwargs, text', [
    (dict(ratio_range=(0, 1)), r'\(0, 1\)'), (dict(ratio_range=(2, 1)), r'\(2, 1\)'), (dict(law='log'), "'log'"),
    (dict(ratio_range=(1.2, 2), law='halves'), r'\(1.2, 2\)')])
def test_scale_settings(kwargs, text):
    with pytest.raises(ValueError, match=text):
        RandomScale(**kwargs)


def test_crop_and_pack_without_mask():
    init_default_scope('mmseg')
    image = results()
    del image['gt_seg_map'], image['seg_map_path'], image['seg_fields']
    crop = TRANSFORMS.build(dict(type='RandomCrop', crop_size=(16, 20)))
    packed = TRANSFORMS.build(dict(type='PackSegInputs'))(crop(image))
    assert packed['inputs'].shape == (3, 16, 20)
    assert 'gt_sem_seg' not in packed['data_samples']


def test_strong_augment_in_the_loader():
    rng = np.random.default_rng(0)
    image = rng.integers(256, size=(64, 48, 3), dtype=np.uint8)
    mask = rng.integers(5, size=(64, 48)).astype(np.uint8)
    mask[:3] = 255
    plain = TRANSFORMS.build(dict(type='StrongAugment', augments=[dict(type='ColorJitter', prob=0.)]))
    same = plain(dict(img=image.copy(), gt_seg_map=mask.copy()))
    assert (same['img'] == image).all() and (same['gt_seg_map'] == mask).all()
    gray = TRANSFORMS.build(dict(type='StrongAugment', augments=[dict(type='RandomGrayscale', prob=1.)]))
    luma = image[..., ::-1] @ [0.299, 0.587, 0.114]  # the image is BGR
    assert np.abs(gray(dict(img=image, gt_seg_map=mask))['img'] - luma[..., None]).max() <= 0.6
    cut = TRANSFORMS.build(dict(type='StrongAugment', augments=[dict(type='Cutout', prob=1.)]))
    results = []
    for _ in range(2):
        np.random.seed(3)
        results.append(cut(dict(img=image.copy(), gt_seg_map=mask.copy())))
    one, other = results
    assert (one['img'] == other['img']).all() and one['img'].dtype == one['gt_seg_map'].dtype == np.uint8
    changed = (one['img'] != image).any(2)
    assert (one['gt_seg_map'][changed] == 255).all() and (one['gt_seg_map'][~changed] == mask[~changed]).mean() > 0.99
