"""Images of any number of bands, from .npy, TIFF and whatever OpenCV reads."""
import io
import math
from typing import Optional, Sequence, Tuple

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform

from mmseg_semi.registry import TRANSFORMS

MAX_BANDS = 128  # cv2.resize, which mmcv's Resize calls, takes no more


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Loads an image of N bands in the order of the file; takes the place of ``LoadImageFromFile``.

    ``.npy`` is read by numpy (no pickles), TIFF by the package tifffile if it is installed, and everything else, also
    8 and 16 bit or float TIFF of one page and 1, 3 or 4 bands, by OpenCV. The pages of a TIFF are bands; of a pyramid
    the largest picture is taken. All bands are scaled from ``value_range`` to 0..255, the
    range in which the rest of the pipeline, ``mean`` and ``std`` are written; uint8 stays uint8 without it.

    Three bands come as the file has them, i.e. RGB: set ``data_preprocessor.bgr_to_rgb=False``.

    Args:
        value_range (tuple[float, float], optional): ``(low, high)`` in the file's units, clipped. Needed unless the
            file holds uint8. Reflectances of Sentinel-2, e.g., are (0, 10000).
        bands (Sequence[int], optional): Which bands of the file to take, in this order, counted from 0. Default: all.
        layout (str): Of arrays with three axes, in ``.npy`` or as tifffile stores them: ``'hwc'``, or ``'chw'`` as GIS
            programs have them. Other TIFF says itself which axis the bands are. Defaults to 'hwc'.
        nodata (float, optional): Value of NaN and infinite pixels, in the file's units. By default they are an error.

    Raises:
        ValueError: If an option is wrong, or a file is broken, has another number of axes, no such band, more than
            128 bands, NaN without ``nodata``, or no 8 bits and there is no ``value_range``. The message names it.
    """

    def __init__(self,
                 value_range: Optional[Tuple[float, float]] = None,
                 bands: Optional[Sequence[int]] = None,
                 layout: str = 'hwc',
                 nodata: Optional[float] = None) -> None:
        if value_range is not None and not (len(value_range) == 2 and value_range[0] < value_range[1]):
            raise ValueError(f'LoadBands.value_range must be (low, high) with low < high, found {value_range}')
        if layout not in ('hwc', 'chw'):
            raise ValueError(f"LoadBands.layout must be 'hwc' or 'chw', found {layout!r}")
        if bands is not None and (not bands or min(bands) < 0):
            raise ValueError(f'LoadBands.bands must be band numbers from 0 on, found {bands}')
        if nodata is not None and not math.isfinite(nodata):
            raise ValueError(f'LoadBands.nodata must be a finite number, found {nodata}')
        self.value_range, self.bands, self.layout, self.nodata = value_range, bands, layout, nodata

    def transform(self, results: dict) -> Optional[dict]:
        """Adds ``img``, uint8 or float32 [H, W, N] in 0..255, ``img_shape`` and ``ori_shape`` (H, W)."""
        path = results['img_path']
        image = self._take_bands(self._read(path), path)
        results['img'] = self._scale(image, path)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        """[H, W, N], any number type."""
        try:
            if path.lower().endswith('.npy'):
                image = self._arranged(np.load(path, allow_pickle=False))
            elif path.lower().endswith(('.tif', '.tiff')):
                image = self._read_tiff(fileio.get(path))
            else:
                image = _decode(fileio.get(path))
        except Exception as error:  # a broken file ends in errors of many types
            raise ValueError(f'cannot read image {path}: {error}') from error
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3 or not image.size or image.dtype.kind not in 'uif':
            raise ValueError(f'{path}: expected [H, W] or three axes of numbers, found {list(image.shape)} of '
                             f'{image.dtype}')
        return image

    def _arranged(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(1, 2, 0) if array.ndim == 3 and self.layout == 'chw' else array

    def _read_tiff(self, data: bytes) -> np.ndarray:
        try:
            import tifffile
        except ImportError:
            return _decode_page(data)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
                return _decode(data)  # to colors
            try:
                image = series.asarray()
            except ValueError as error:
                if 'imagecodecs' not in str(error):
                    raise
                return _decode_page(data, f'{error}, which pip installs', series.keyframe.samplesperpixel)
        if 'Q' in series.axes:  # an array as somebody stored it
            return self._arranged(image)
        bands = [i for i, axis in enumerate(series.axes) if axis not in 'YX']
        return np.moveaxis(image, bands[0], -1) if len(bands) == 1 else image

    def _take_bands(self, image: np.ndarray, path: str) -> np.ndarray:
        if self.bands is not None:
            if max(self.bands) >= image.shape[2]:
                raise ValueError(f'{path} has {image.shape[2]} bands, LoadBands.bands asks for number '
                                 f'{max(self.bands)}, counted from 0; layout is {self.layout!r}')
            image = image[..., list(self.bands)]
        if image.shape[2] > MAX_BANDS:
            raise ValueError(f'{path} has {image.shape[2]} bands; OpenCV resizes at most {MAX_BANDS}: choose by '
                             f"LoadBands.bands, or set layout='{'hwc' if self.layout == 'chw' else 'chw'}' if the "
                             'axes are swapped')
        return image

    def _scale(self, image: np.ndarray, path: str) -> np.ndarray:
        if image.dtype.kind == 'f':
            missing = ~np.isfinite(image)
            if missing.any():
                if self.nodata is None:
                    raise ValueError(f'{path}: {missing.sum()} values are NaN or infinite; set LoadBands.nodata to the '
                                     'value that they shall have')
                image = np.where(missing, self.nodata, image)
        if self.value_range is None:
            if image.dtype != np.uint8:
                raise ValueError(f'{path} holds {image.dtype} from {image.min():g} to {image.max():g}: set '
                                 'LoadBands.value_range=(low, high), the values that become 0 and 255')
            return np.ascontiguousarray(image)
        low, high = self.value_range
        scaled = (image.astype(np.float32) - low).clip(0, high - low) * np.float32(255 / (high - low))
        return np.ascontiguousarray(scaled)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(value_range={self.value_range}, bands={self.bands}, layout={self.layout!r}, '
                f'nodata={self.nodata})')


def _decode(data: bytes) -> np.ndarray:
    """What OpenCV reads, in the order of the file."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError('OpenCV knows no such image')
    return _in_order(image)


def _decode_page(data: bytes,
                 remedy: str = 'for others pip install tifffile',
                 bands: Optional[int] = None) -> np.ndarray:
    """The only page of a TIFF; the smaller ones of a pyramid do not count. OpenCV makes one band of some four."""
    _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    alike = sum(page.shape == pages[0].shape for page in pages)
    if alike != 1 or bands not in (None, pages[0][0, 0].size):
        found = 'OpenCV knows no such image:' if not alike else 'OpenCV would lose bands; it knows' if alike == 1 else \
            f'{alike} pages of one size, and OpenCV knows'
        raise ValueError(f'{found} TIFF of one page with 1, 3 or 4 bands; {remedy}')
    return _in_order(pages[0])


def _in_order(image: np.ndarray) -> np.ndarray:
    """OpenCV's BGR and BGRA as RGB and RGBA."""
    return image[..., [2, 1, 0, *range(3, image.shape[2])]] if image.ndim == 3 and image.shape[2] >= 3 else image
