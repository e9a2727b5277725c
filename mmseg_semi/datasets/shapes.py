"""The synthetic scenes of the demo."""
from mmseg.datasets import BaseSegDataset

from mmseg_semi.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Textured shapes made by ``tools/dataset_converters/make_shapes.py``; images and masks are ``.png``."""
    METAINFO = dict(
        classes=('background', 'disk', 'box', 'triangle', 'star', 'ring', 'cross'),
        palette=[[0, 0, 0], [230, 60, 60], [60, 170, 75], [255, 215, 0], [70, 90, 220], [240, 130, 50], [150, 50, 180]])

    def __init__(self, img_suffix: str = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)
