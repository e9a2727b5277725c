"""What can be known to fail before the first stage of a plan runs."""
from typing import Collection, Dict

from mmseg.datasets import BaseSegDataset

from mmseg_semi.datasets import PseudoLabeledDataset, UnlabeledDataset
from mmseg_semi.datasets.self_training import refuse_overlap
from mmseg_semi.engine.runner.image_records import image_files
from mmseg_semi.engine.runner.image_sets import image_set_class, image_sets, list_images, listed_elsewhere
from mmseg_semi.engine.runner.pseudo_label_stage import MAX_CLASSES, PseudoLabelStage
from mmseg_semi.engine.runner.select_stage import SelectStage
from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.engine.runner.train_stage import TrainStage


def check_stage(stage: Stage, made: Collection[str], before: Dict[str, Stage]) -> None:
    """Looks for bad input of one stage. Images are listed, none is opened.

    Args:
        stage (Stage): Built, with references as they stand in the plan.
        made (Collection[str]): These references; a set that an earlier stage lists is not there yet.
        before (dict[str, Stage]): The stages before it by name.

    Raises:
        ValueError: If a set is missing or empty, images to be labeled or scored share an id, an image is labeled and
            pseudo-labeled, or a mask cannot hold the classes; names the setting.
    """
    labeled, pseudo = {}, {}
    for key, cfg in image_sets(stage.settings()):
        if listed_elsewhere(cfg, made):
            continue
        dataset = list_images(cfg, key)
        if isinstance(stage, (PseudoLabelStage, SelectStage)) and key == 'dataset':
            _check_ids(cfg, dataset)
        if isinstance(stage, TrainStage) and key.startswith('train_dataloader.'):
            if issubclass(image_set_class(cfg), PseudoLabeledDataset):
                pseudo[key] = dataset
            elif not isinstance(dataset, UnlabeledDataset):
                labeled[key] = dataset
    for one in labeled:
        for other in pseudo:
            _check_overlap(one, labeled[one], other, pseudo[other])
    if isinstance(stage, PseudoLabelStage):
        _check_classes(stage.cfg, before)


def _check_ids(cfg: dict, dataset: BaseSegDataset) -> None:
    heavy = [folder for folder in cfg.get('folders') or () if isinstance(folder, dict) and folder.get('weight', 1) > 1]
    if heavy:
        raise ValueError(f'dataset.folders: {dict(heavy[0])} has a weight; expected folders without, as each image is '
                         'labeled and scored once')
    try:
        image_files(dataset)
    except ValueError as error:
        raise ValueError(f'dataset: {error}') from error


def _check_overlap(key: str, labeled: BaseSegDataset, other: str, pseudo: BaseSegDataset) -> None:
    try:
        refuse_overlap(labeled, pseudo)
    except ValueError as error:
        raise ValueError(f'{key} and {other}: {error}') from error


def _check_classes(source: str, before: Dict[str, Stage]) -> None:
    train = before.get(source.split(':')[0])
    if not isinstance(train, TrainStage):
        return  # the labeling looks at the model itself
    head = train.cfg.model.get('decode_head') or {}
    classes = (head[-1] if isinstance(head, (list, tuple)) else head).get('num_classes')
    if classes is not None and not 1 < classes <= MAX_CLASSES:
        raise ValueError(f'cfg: {source} has decode_head.num_classes={classes}; expected 2..{MAX_CLASSES}, as a mask '
                         'has 8 bits and 255 is ignore')
