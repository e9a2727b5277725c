"""What can be known to fail before the first stage of a plan runs."""
import copy
from typing import Collection, Dict

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.datasets import BaseSegDataset

from mmseg_semi.datasets import LabeledUnlabeledSampler, PseudoLabeledDataset, UnlabeledDataset
from mmseg_semi.datasets.self_training import refuse_overlap
from mmseg_semi.engine.give_up import MISTAKES
from mmseg_semi.engine.hooks.ema_teacher_hook import check_counts
from mmseg_semi.engine.runner.image_records import image_files
from mmseg_semi.engine.runner.image_sets import image_set_class, image_sets, list_images, listed_elsewhere
from mmseg_semi.engine.runner.pseudo_label_stage import MAX_CLASSES, PseudoLabelStage, check_channels, model_settings
from mmseg_semi.engine.runner.select_stage import SelectStage, reliable_count
from mmseg_semi.engine.runner.stage import Stage, references
from mmseg_semi.engine.runner.train_stage import TrainStage
from mmseg_semi.registry import MODELS


def check_stage(stage: Stage, made: Collection[str], before: Dict[str, Stage]) -> None:
    """Looks for bad input of one stage. Images are listed, none is opened.

    Args:
        stage (Stage): Built, with references as they stand in the plan.
        made (Collection[str]): These references; a set that an earlier stage lists is not there yet.
        before (dict[str, Stage]): The stages before it by name.

    Raises:
        ValueError: If a set is missing or empty, or will be, images to be labeled or scored share an id, an image is
            labeled and pseudo-labeled, a mask cannot hold the classes, a model cannot be built, or a sampler makes
            other batches than the loader; names the setting.
    """
    labeled, pseudo, settings = {}, {}, stage.settings()
    for key, cfg in image_sets(settings):
        if listed_elsewhere(cfg, made):
            if isinstance(stage, TrainStage) and not _may_be_empty(settings, key):
                _check_selected(cfg, key, before)
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
    if isinstance(stage, TrainStage):
        _check_sampler(stage.cfg.train_dataloader)
        if not any(references(stage.cfg.model, list(before))):  # a file of an earlier stage is not there yet
            check_model(stage.cfg)


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


def _may_be_empty(settings: dict, key: str) -> bool:
    """Whether a set is one that ``SelfTrainingDataset`` does without when it holds no image."""
    *above, name = key.split('.')
    for part in above:
        settings = settings[part] if isinstance(settings, dict) else settings[int(part)]
    return name == 'pseudo' and settings.get('type') == 'SelfTrainingDataset'


def _check_selected(cfg: dict, key: str, before: Dict[str, Stage]) -> None:
    """A set that a selection lists must hold an image; how many it will is known from the numbers."""
    source, _, which = str(cfg.get('ann_file')).partition(':')
    select = before.get(source)
    if not isinstance(select, SelectStage) or listed_elsewhere(
            select.dataset, set(references(select.dataset, list(before)))):
        return
    total = len(list_images(select.dataset, f'stage {source}: dataset'))
    count = reliable_count(select.ratio, total)
    if dict(reliable=count, unreliable=total - count).get(which) == 0:
        raise ValueError(f'{key}: {source}:{which} will hold no image, as ratio={select.ratio} of the {total} images '
                         f'of stage {source}, rounded down, are {count} reliable ones; expected at least one. Add '
                         'unlabeled images or change the ratio')


def _check_sampler(loader: dict) -> None:
    sampler = loader.get('sampler') or {}
    if sampler.get('type') == 'ReplaySampler':
        sampler = sampler.get('sampler') or {}
    if sampler.get('type') in ('LabeledUnlabeledSampler', LabeledUnlabeledSampler):
        check_counts(LabeledUnlabeledSampler.read_counts(sampler.get('counts')), loader.get('batch_size'))


def check_model(cfg: Config) -> None:
    """Builds the model of a training, without memory for its weights and without initial ones.

    Args:
        cfg (Config): Of the training; not changed.

    Raises:
        ValueError: If the model cannot be built.
    """
    model = model_settings(cfg)
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
            try:
                with torch.device('meta'):
                    MODELS.build(copy.deepcopy(model))
            except RuntimeError:  # some backbones read numbers out of tensors as they are built
                MODELS.build(model)
    except MISTAKES as error:
        raise ValueError(f'model: {str(error) or repr(error)}') from error


def _check_classes(source: str, before: Dict[str, Stage]) -> None:
    train = before.get(source.split(':')[0])
    if not isinstance(train, TrainStage):
        return  # the labeling looks at the model itself
    head = train.cfg.model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    classes = head.get('num_classes')
    if classes is not None and not 1 < classes <= MAX_CLASSES:
        raise ValueError(f'cfg: {source} has decode_head.num_classes={classes}; expected 2..{MAX_CLASSES}, as a mask '
                         'has 8 bits and 255 is ignore')
    check_channels(f'cfg: {source}', classes, head.get('out_channels'))
