"""The score of ST++: images on which the checkpoints of one training agree are reliable."""
from pathlib import Path
from typing import Dict, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset

from mmseg_semi.engine.runner.pseudo_label_stage import load_trained, predict_label
from mmseg_semi.engine.runner.select_stage import StageScorer
from mmseg_semi.registry import STAGE_SCORERS


def map_agreement(prediction: np.ndarray, reference: np.ndarray, num_classes: int) -> float:
    """Mean IoU of two maps of one image over the classes that are in at least one of them.

    Args:
        prediction (ndarray): [H, W] integers; pixels with a label outside 0..C-1 in either map do not count.
        reference (ndarray): [H, W] integers.
        num_classes (int): ``C``.

    Returns:
        float: In [0, 1]; 0 if no pixel counts.
    """
    counted = (prediction < num_classes) & (reference < num_classes)
    one, other = prediction[counted], reference[counted]
    common = np.bincount(one[one == other], minlength=num_classes)
    union = np.bincount(one, minlength=num_classes) + np.bincount(other, minlength=num_classes) - common
    present = union > 0
    return float((common[present] / union[present]).mean()) if present.any() else 0.


@STAGE_SCORERS.register_module()
class CheckpointAgreement(StageScorer):
    """``s(x) = 1 / (K - 1) sum_{k < K} mIoU(P_k(x), P_K(x))`` (ST++ spec section 3); high is reliable.

    ``P_k`` is the prediction of checkpoint ``k`` on the whole image, without test-time augmentation.

    Args:
        cfg (str): Config of the model, such as ``'sup:config'``.
        checkpoints (Sequence[str]): At least two different ones; the last is the reference. All are held in memory.

    Raises:
        ValueError: If there are fewer than two checkpoints, or one comes twice.
    """

    def __init__(self, cfg: str, checkpoints: Sequence[str]) -> None:
        if len(checkpoints) < 2 or len(set(checkpoints)) < len(checkpoints):
            raise ValueError('CheckpointAgreement.checkpoints must be at least two different ones, such as '
                             f"['sup:at_0', 'sup:at_1', 'sup:last'], found {list(checkpoints)}")
        self.cfg, self.checkpoints = cfg, list(checkpoints)
        self.models: list = []

    def settings(self) -> dict:
        """Config and checkpoints."""
        return dict(cfg=self.cfg, checkpoints=self.checkpoints)

    def prepare(self, folder: Path, dataset: BaseSegDataset) -> Dict[str, Path]:
        """Loads the checkpoints."""
        cfg = Config.fromfile(self.cfg)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.models = [load_trained(cfg, checkpoint)[0] for checkpoint in self.checkpoints]
        return {}

    def score(self, sample: dict) -> float:
        """Mean agreement of the earlier checkpoints with the last one, in [0, 1]."""
        *earlier, reference = [predict_label(model, sample) for model in self.models]
        return float(np.mean([map_agreement(label, reference, self.models[-1].num_classes) for label in earlier]))
