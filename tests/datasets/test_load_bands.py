"""Images of any number of bands reach the network as their files hold them."""
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

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


@pytest.fixture(params=['tifffile', 'opencv'])
def reader(request, monkeypatch):
    """With the package tifffile, and as on a machine that lacks it."""
    if request.param == 'opencv':
        monkeypatch.setitem(sys.modules, 'tifffile', None)
    return request.param


@pytest.mark.parametrize('layout', ['hwc', 'chw'])  # of arrays; a TIFF says what its own is
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('bands', [1, 3, 4])
def test_tiff_keeps_the_order_of_the_file(tmp_path, reader, dtype, bands, layout):
    image = (BANDS[..., :bands] // 40).astype(dtype)
    in_opencv = image[..., [2, 1, 0, 3][:bands]] if bands > 1 else image  # it writes BGR as RGB
    # OpenCV 4 writes three bands of floats in a lossy form unless told not to.
    cv2.imwrite(str(tmp_path / 'a.tif'), in_opencv, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    loaded = load(tmp_path / 'a.tif', value_range=(0, 255), layout=layout)['img']
    np.testing.assert_allclose(loaded, image, atol=1e-3)


@pytest.mark.parametrize('layout', ['hwc', 'chw'])
def test_tiff_of_six_bands(tmp_path, layout):
    """Side by side, one after the other, compressed, a page each: the file says which axis the bands are."""
    mini, pages = dict(photometric='minisblack'), BANDS.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / 'contig.tif', BANDS, planarconfig='contig', **mini)
    tifffile.imwrite(tmp_path / 'packed.tif', BANDS, planarconfig='contig', compression='zlib', **mini)
    tifffile.imwrite(tmp_path / 'separate.tif', pages, planarconfig='separate', **mini)
    tifffile.imwrite(tmp_path / 'pages.tif', pages, metadata=None, **mini)
    for name in ('contig', 'packed', 'separate', 'pages'):
        loaded = load(tmp_path / f'{name}.tif', value_range=(0, 255), layout=layout)['img']
        np.testing.assert_array_equal(loaded, BANDS.clip(0, 255), err_msg=name)
    # An array that tifffile stores knows its shape, not what the axes are.
    tifffile.imwrite(tmp_path / 'array.tif', BANDS if layout == 'hwc' else pages)
    assert (load(tmp_path / 'array.tif', value_range=(0, 255), layout=layout)['img'] == BANDS.clip(0, 255)).all()


def test_tiff_without_tifffile(tmp_path, monkeypatch):
    """A file of many pages is no image of one band."""
    tifffile.imwrite(tmp_path / 'pages.tif', BANDS.transpose(2, 0, 1), metadata=None, photometric='minisblack')
    tifffile.imwrite(tmp_path / 'contig.tif', BANDS, planarconfig='contig', photometric='minisblack')
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(ValueError, match='pages.tif: 6 pages of one size.*pip install tifffile'):
        load(tmp_path / 'pages.tif', value_range=(0, 10000))
    with pytest.raises(ValueError, match='contig.tif: OpenCV knows no such image.*pip install tifffile'):
        load(tmp_path / 'contig.tif', value_range=(0, 10000))


@pytest.mark.parametrize('compression', ['tiff_lzw', 'jpeg', 'tiff_adobe_deflate'])
def test_compressed_tiff(tmp_path, reader, compression):
    """tifffile alone unpacks neither LZW nor JPEG, OpenCV does."""
    Image.fromarray(np.full((16, 24, 3), (200, 100, 50), np.uint8)).save(tmp_path / 'a.tif', compression=compression)
    loaded = load(tmp_path / 'a.tif')['img']
    assert loaded.shape == (16, 24, 3) and np.abs(loaded.astype(int) - (200, 100, 50)).max() <= 3


def test_pyramid_and_palette(tmp_path, reader):
    image = np.zeros((64, 48, 3), np.uint8)
    image[:32] = 10, 20, 30
    with tifffile.TiffWriter(tmp_path / 'pyramid.tif') as file:
        file.write(image, photometric='rgb', subifds=1)
        file.write(image[::2, ::2], photometric='rgb', subfiletype=1)
    assert (load(tmp_path / 'pyramid.tif')['img'] == image).all()
    with tifffile.TiffWriter(tmp_path / 'overview.tif') as file:  # as GDAL writes them
        file.write(image, photometric='rgb', metadata=None)
        file.write(image[::2, ::2], photometric='rgb', subfiletype=1, metadata=None)
    assert (load(tmp_path / 'overview.tif')['img'] == image).all()
    Image.fromarray(image).quantize(4).save(tmp_path / 'palette.tif')
    assert (load(tmp_path / 'palette.tif')['img'] == image).all()


def test_tiff_of_a_codec_that_nobody_has(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', BANDS, planarconfig='contig', photometric='minisblack', compression='zlib')
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        tag = file.pages[0].tags['Compression']
    data[tag.valueoffset:tag.valueoffset + 2] = (5).to_bytes(2, sys.byteorder)  # LZW of six bands
    (tmp_path / 'a.tif').write_bytes(data)
    with pytest.raises(ValueError, match="a.tif: OpenCV knows no such image: .*LZW.*'imagecodecs' package, which pip"):
        load(tmp_path / 'a.tif', value_range=(0, 1))


def test_opencv_loses_no_band_behind_a_codec(tmp_path):
    """It reads the first of several pages, and one band where four are called black and white."""
    cv2.imwritemulti(str(tmp_path / 'pages.tif'), [np.full((16, 24), 50 * i, np.uint8) for i in range(4)])
    cv2.imwrite(str(tmp_path / 'four.tif'), np.zeros((16, 24, 4), np.uint8))
    data = bytearray((tmp_path / 'four.tif').read_bytes())
    with tifffile.TiffFile(tmp_path / 'four.tif') as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.LZW and file.pages[0].samplesperpixel == 4
        tag = file.pages[0].tags['PhotometricInterpretation']
    assert load(tmp_path / 'four.tif')['img'].shape == (16, 24, 4)
    data[tag.valueoffset:tag.valueoffset + 2] = (1).to_bytes(2, sys.byteorder)  # MINISBLACK
    (tmp_path / 'four.tif').write_bytes(data)
    for name, found in (('pages', '4 pages of one size'), ('four', 'OpenCV would lose bands')):
        with pytest.raises(ValueError, match=f"{name}.tif: {found}.*'imagecodecs' package, which pip"):
            load(tmp_path / f'{name}.tif')


def test_pipeline_of_mmseg(tmp_path):
    np.save(tmp_path / 'a.npy', BANDS)
    results = dict(img_path=str(tmp_path / 'a.npy'), seg_fields=[], reduce_zero_label=False)
    for transform in (dict(type='LoadBands', value_range=(0, 10000)),
                      dict(type='RandomResize', scale=(18, 14), ratio_range=(2.0, 2.0), keep_ratio=True),
                      dict(type='RandomCrop', crop_size=(8, 8)), dict(type='RandomFlip', prob=1.0),
                      dict(type='PackSegInputs')):
        results = TRANSFORMS.build(transform)(results)
    assert results['inputs'].shape == (6, 8, 8) and results['inputs'].dtype.is_floating_point


def test_bad_files(tmp_path, reader):
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
