"""CamVid, the 11 classes of the SegNet release."""
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """Street scenes in the 11-class grouping of SegNet; label 255 is void.

    Images ``<id>.jpg``, masks ``<id>.png`` with class indices 0..10. Classes and colors follow
    http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ and https://arxiv.org/abs/1511.00561.
    """
    METAINFO = dict(
        classes=('Sky', 'Building', 'Pole', 'Road', 'Sidewalk', 'Tree', 'SignSymbol', 'Fence', 'Car', 'Pedestrian',
                 'Bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192], [128, 128, 0],
                 [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]])
