"""COCO with its 80 things and a background."""
from typing import List

from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS


def voc_palette(count: int) -> List[List[int]]:
    """The colors of Pascal VOC's color map, RGB in 0..255: the bits of a label, three by three, from the highest on."""
    return [[sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
            for label in range(count)]


@DATASETS.register_module()
class COCO81Dataset(BaseSegDataset):
    """COCO 2017 as semi-supervised papers use it: background 0 and the 80 things 1..80 in the order of their ids.

    Images ``<id>.jpg``, masks ``<id>.png`` by ``tools/dataset_converters/coco.py``. Not mmseg's ``COCOStuffDataset``,
    which has 171 classes and no background. Source: https://cocodataset.org.
    """
    METAINFO = dict(
        classes=('background', 'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
                 'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse',
                 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie',
                 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove',
                 'skateboard', 'surfboard', 'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon',
                 'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut',
                 'cake', 'chair', 'couch', 'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse',
                 'remote', 'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
                 'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush'),
        palette=voc_palette(81))
