"""Images with masks that a model made."""
import os.path as osp
from typing import List, Sequence, Union

from mmseg_semi.datasets.unlabeled import UnlabeledDataset
from mmseg_semi.registry import DATASETS


@DATASETS.register_module()
class PseudoLabeledDataset(UnlabeledDataset):
    """The images of an :class:`UnlabeledDataset` with masks from ``PseudoLabelStage``.

    Args:
        mask_dirs (str or Sequence[str]): Folders of masks. The first one that holds a mask of an image gives it, so a
            later labeling overlays an earlier one and nothing is overwritten.
        **kwargs: Of :class:`UnlabeledDataset`; the pipeline loads annotations.

    Raises:
        FileNotFoundError: If an image has no mask in any folder.
    """

    reads_masks = True

    def __init__(self, mask_dirs: Union[str, Sequence[str]], **kwargs) -> None:
        self.mask_dirs = [mask_dirs] if isinstance(mask_dirs, str) else list(mask_dirs)
        super().__init__(**kwargs)

    def load_data_list(self) -> List[dict]:
        """As :class:`UnlabeledDataset`, with ``seg_map_path`` and what ``LoadAnnotations`` reads."""
        infos = super().load_data_list()
        for info in infos:
            key = osp.splitext(osp.relpath(info['img_path'], self.data_prefix['img_path'] or '.'))[0]
            paths = [osp.join(folder, f'{key}.png') for folder in self.mask_dirs]
            path = next((path for path in paths if osp.isfile(path)), None)
            if path is None:
                raise FileNotFoundError(f'no pseudo-label of {info["img_path"]}: looked for {", ".join(paths)}')
            info.update(seg_map_path=path, label_map=None, reduce_zero_label=False)
        return infos
