"""Images of any number of bands reach the network as their files hold them."""
import cv2
import numpy as np
import pytest

from mmseg_semi.datasets import LoadBands
from mmseg_semi.registry import TRANSFORMS

BANDS = np.random.default_rng(0).integers(0, 10000, size=(9, 7, 6)).astype(np.uint16)


def load(path, **kwargs):
    return LoadBands(**kwargs)(dict(img_path=str(path), seg_fields=[]))


def test_npy(tmp_path):
    np.save(tmp_path / 'a.npy', BANDS)
    results = load(tmp_path / 'a.npy', value_range=(1000, 9000), bands=[5, 0])
    assert results['img'].dtype == np.float32 and results['img_shape'] == results['ori_shape'] == (9, 7)
    expected = np.clip((BANDS[..., [5, 0]].astype(float) - 1000) / 8000, 0, 1) * 255
    np.testing.assert_allclose(results['img'], expected, atol=1e-3)
    np.save(tmp_path / 'chw.npy', BANDS.transpose(2, 0, 1))
    swapped = load(tmp_path / 'chw.npy', value_range=(1000, 9000), bands=[5, 0], layout='chw')
    assert (swapped['img'] == results['img']).all() and swapped['img'].flags.c_contiguous
    np.save(tmp_path / 'gray.npy', BANDS[..., 0].astype(np.uint8))
    gray = load(tmp_path / 'gray.npy')['img']
    assert gray.dtype == np.uint8 and (gray[..., 0] == BANDS[..., 0].astype(np.uint8)).all()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('bands', [1, 3, 4])
def test_tiff_keeps_the_order_of_the_file(tmp_path, dtype, bands):
    image = (BANDS[..., :bands] // 40).astype(dtype)
    in_opencv = image[..., [2, 1, 0, 3][:bands]] if bands > 1 else image  # it writes BGR as RGB
    # OpenCV 4 writes three bands of floats in a lossy form unless told not to.
    cv2.imwrite(str(tmp_path / 'a.tif'), in_opencv, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    for layout in ('hwc', 'chw'):  # of arrays; OpenCV knows what a TIFF's is
        loaded = load(tmp_path / 'a.tif', value_range=(0, 255), layout=layout)['img']
        np.testing.assert_allclose(loaded, image, atol=1e-3)


def test_pipeline_of_mmseg(tmp_path):
    np.save(tmp_path / 'a.npy', BANDS)
    results = dict(img_path=str(tmp_path / 'a.npy'), seg_fields=[], reduce_zero_label=False)
    for transform in (dict(type='LoadBands', value_range=(0, 10000)),
                      dict(type='RandomResize', scale=(18, 14), ratio_range=(2.0, 2.0), keep_ratio=True),
                      dict(type='RandomCrop', crop_size=(8, 8)), dict(type='RandomFlip', prob=1.0),
                      dict(type='PackSegInputs')):
        results = TRANSFORMS.build(transform)(results)
    assert results['inputs'].shape == (6, 8, 8) and results['inputs'].dtype.is_floating_point


def test_bad_files(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, BANDS)
    with pytest.raises(ValueError, match=r'a.npy holds uint16 from .* set LoadBands.value_range'):
        load(path)
    with pytest.raises(ValueError, match="a.npy has 6 bands, LoadBands.bands asks for number 6"):
        load(path, bands=[0, 6])
    np.save(path, np.zeros((200, 4, 4), np.float32).transpose(1, 2, 0))
    with pytest.raises(ValueError, match="200 bands; OpenCV resizes at most 128.*layout='chw'"):
        load(path, value_range=(0, 1))
    holes = np.zeros((4, 4), np.float32)
    holes[1, 2] = np.nan
    np.save(path, holes)
    with pytest.raises(ValueError, match='1 values are NaN or infinite; set LoadBands.nodata'):
        load(path, value_range=(0, 2))
    assert load(path, value_range=(0, 2), nodata=1)['img'][1, 2, 0] == 127.5
    np.save(path, np.array([dict(a=1)]), allow_pickle=True)
    with pytest.raises(ValueError, match='cannot read image .*a.npy: .*allow_pickle'):
        load(path)
    np.save(path, np.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match=r'found \[1, 4, 4, 3\]'):
        load(path)
    for name in ('b.tif', 'b.png', 'b.npy'):
        (tmp_path / name).write_bytes(b'x' * 50)
        with pytest.raises(ValueError, match=f'cannot read image .*{name}'):
            load(tmp_path / name)
    with pytest.raises(ValueError, match='cannot read image .*none.npy'):
        load(tmp_path / 'none.npy')


@pytest.mark.parametrize('options, told', [
    (dict(value_range=(5, 5)), 'low < high'), (dict(layout='bhw'), "found 'bhw'"), (dict(bands=[]), 'bands must be'),
    (dict(bands=[-1]), 'bands must be'), (dict(nodata=float('nan')), 'nodata must be')])
def test_options(options, told):
    with pytest.raises(ValueError, match=told):
        LoadBands(**options)
