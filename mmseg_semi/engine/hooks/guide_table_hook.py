"""Remembers which classes the teacher last saw in each unlabeled image."""
import hashlib
import json
from typing import List, Optional

import torch
from mmengine.dist import all_gather
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmseg_semi.datasets import GuidedPairDataset, OnlineGuidedDataset
from mmseg_semi.models.segmentors.cisc_online import CISCOnline
from mmseg_semi.registry import HOOKS


@HOOKS.register_module()
class GuideTableHook(Hook):
    """Keeps the table of an :class:`OnlineGuidedDataset` up to date, equal on all ranks, and in the checkpoint.

    The classes of a step are written one step later, when they have long arrived on the host: nothing waits for the
    device. A checkpoint's table is taken over if it is of the same unlabeled images and classes.

    Raises:
        TypeError: When training starts, if model or unlabeled set are of another kind.
        ValueError: When training starts, if the index of a data set and the model have other classes, ``min_area`` or
            ``exclude``.
    """

    # Before CheckpointHook.
    priority = 'NORMAL'
    _KEY = 'guide_table'

    def __init__(self) -> None:
        self._loaded: Optional[dict] = None
        self._pending: Optional[tuple] = None

    def before_train(self, runner: Runner) -> None:
        """Checks that the parts fit and takes over the table of the checkpoint."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, CISCOnline):
            raise TypeError(f'GuideTableHook needs a CISCOnline, found {type(model).__name__}; set model.type')
        sources = getattr(runner.train_dataloader.dataset, 'datasets', [])
        if len(sources) != 2 or not isinstance(sources[1], OnlineGuidedDataset):
            raise TypeError('GuideTableHook needs a SemiDataset whose unlabeled set is an OnlineGuidedDataset, found '
                            f'{[type(source).__name__ for source in sources]}')
        for name, source in zip(('labeled', 'unlabeled'), sources, strict=True):
            if isinstance(source, GuidedPairDataset):
                self._check(model, name, source)
        self.model, self.dataset = model, sources[1]
        paths = [self.dataset.get_data_info(i)['img_path'] for i in range(len(self.dataset))]
        self.digest = self._digest(paths, self.dataset.primary.data_prefix.get('img_path') or '')
        if self._loaded is None:
            return
        if self._loaded['sha256'] == self.digest:
            self.dataset.table.copy_(self._loaded['table'])
            self._pending = self._loaded['pending']
            runner.logger.info('The guide table comes from the checkpoint.')
        else:
            runner.logger.info('The guide table of the checkpoint is of other images or classes; it starts empty.')
        self._loaded = None

    @staticmethod
    def _check(model: CISCOnline, name: str, dataset: GuidedPairDataset) -> None:
        index = dataset.index
        for what, found, expected in (('classes', len(index.classes), model.num_classes),
                                      ('min_area', index.min_area, model.min_area),
                                      ('exclude', tuple(index.exclude), model.exclude)):
            if found != expected:
                raise ValueError(f'the index of the {name} set has {what} {found}, model.{what} is {expected}: set '
                                 'both alike')

    def _digest(self, paths: List[str], root: str) -> str:
        # Relative, so that a moved data set is the same.
        names = [path[len(root):] if path.startswith(root) else path for path in paths]
        return hashlib.sha256(json.dumps([names, self.dataset.index.classes]).encode()).hexdigest()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Sends the classes of this step on their way and writes those of the one before."""
        if not self.model.unsup_active:
            return
        classes = self.model.predicted_classes
        rows = torch.tensor([sample.table_row for sample in data_batch['unlabeled']['data_samples']])
        rows = rows.to(classes.device, non_blocking=True)
        self._write()
        self._pending = self._to_host([torch.cat(all_gather(rows)), torch.cat(all_gather(classes))])

    @staticmethod
    def _to_host(tensors: List[Tensor]) -> tuple:
        event = torch.cuda.Event() if tensors[0].is_cuda else None
        copies = [tensor.to('cpu', non_blocking=True) for tensor in tensors]
        if event:
            event.record()
        return event, *copies

    def _write(self) -> None:
        if self._pending is not None:
            _, rows, classes = self._arrived()
            self.dataset.table[rows] = classes

    def _arrived(self) -> tuple:
        event, rows, classes = self._pending
        if event:
            event.synchronize()
        return None, rows, classes

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Saves the table, and beside it what is still to be written: only one rank saves, and all stay equal."""
        checkpoint[self._KEY] = dict(table=self.dataset.table.clone(), sha256=self.digest,
                                     pending=self._pending and self._arrived())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps the table for the start of training, where the data set is known."""
        found = checkpoint.get(self._KEY)
        if found:  # of a run that is resumed, on the device
            pending = found.get('pending') and (None, *(tensor.cpu() for tensor in found['pending'][1:]))
            self._loaded = dict(found, table=found['table'].cpu(), pending=pending)
