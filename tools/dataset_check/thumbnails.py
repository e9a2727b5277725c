"""Small pictures of images with their masks, made in the workers."""
import base64
from typing import Optional, Tuple

import cv2
import numpy as np

from dataset_check.scan import source_of
from dataset_check.sources import Source

SIDE = 160
WRONG = (255, 0, 255)  # RGB of a label that is no class
IGNORED = (255, 255, 255)


def thumbnail(task: Tuple[int, int]) -> Tuple[Tuple[int, int], Optional[str]]:
    """A picture ``(source, place)`` of the image and, beside it, the image under its mask.

    Returns:
        tuple: The task and a data URL of a JPEG; None if the image cannot be shown.
    """
    source = source_of(task[0])
    info = source.dataset.get_data_info(task[1])
    try:
        for loader in source.image_loaders:
            info = loader(info) or info
        image = _small(_eight_bits(info['img']))
    except Exception:  # the findings tell why
        return task, None
    panels = [image]
    try:
        info = dict(info, seg_fields=[])
        for loader in source.mask_loaders:
            info = loader(info) or info
        if source.mask_loaders:
            panels.append(overlay(source, image, info['gt_seg_map']))
    except Exception:
        pass
    done, data = cv2.imencode('.jpg', np.hstack(panels), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return task, 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode() if done else None


def overlay(source: Source, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, BGR uint8 [h, w, 3], half covered by the colors of a mask [H, W]; ignored pixels are white."""
    colors = np.full((256, 3), WRONG, np.uint8)
    colors[:len(source.classes)] = source.palette[:256]
    colors[source.model.ignore_index] = IGNORED
    mask = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(image, 0.4, np.ascontiguousarray(colors[mask][..., ::-1]), 0.6, 0)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """Any image as BGR uint8: the first three bands, stretched to 0..255 unless they are bytes."""
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    if image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float32))
        image = (255 * (values - values.min()) / max(float(np.ptp(values)), 1e-6)).astype(np.uint8)
    return np.ascontiguousarray(image)


def _small(image: np.ndarray) -> np.ndarray:
    factor = SIDE / max(image.shape[:2])
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
