"""A stage that lists which labeled images show which class."""
from pathlib import Path
from typing import Dict, Sequence

from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from mmseg_semi.datasets import ClassIndex
from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.registry import DATASETS, STAGES


@STAGES.register_module()
class IndexStage(Stage):
    """Builds the :class:`ClassIndex` of the labeled set; always from its masks, never from a list that is shipped.

    Artifact: ``class_index`` (JSON), with the digest of the labeled ids. A changed labeled list makes the stage stale.

    Args:
        labeled (dict): The labeled set, such as ``'config:train_dataloader.dataset'``.
        min_area (float): Share of an image from which on it shows a class, in (0, 1]. Published: 0.03.
        exclude (Sequence[int]): Classes never queried: (0, ) for VOC, () for Cityscapes.

    Raises:
        ValueError: If ``min_area`` is out of range; when it runs, see :meth:`ClassIndex.build`.
    """

    artifacts = ('class_index', )
    mends = ('class_index', )

    def __init__(self, labeled: dict, min_area: float = 0.03, exclude: Sequence[int] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 < min_area <= 1:
            raise ValueError(f'IndexStage.min_area must be in (0, 1], found {min_area}')
        self.labeled, self.min_area, self.exclude = labeled, min_area, tuple(exclude)

    def settings(self) -> dict:
        """Every option."""
        return dict(labeled=self.labeled, min_area=self.min_area, exclude=self.exclude)

    def run(self) -> Dict[str, Path]:
        """Reads the masks and logs the coverage of every class."""
        path = self.folder / 'class_index.json'
        if get_rank() == 0:
            index = ClassIndex.build(DATASETS.build(self.labeled), self.min_area, self.exclude)
            print_log(index.describe(), 'current')
            index.save(str(path))
        barrier()
        return dict(class_index=path)
