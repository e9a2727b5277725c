"""Gives PCR its first prototypes."""
import copy
import itertools
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

import torch
from mmengine.dist import broadcast, gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmseg_semi.datasets.file_errors import naming_files
from mmseg_semi.engine.hooks.ema_teacher_hook import unwrap
from mmseg_semi.models.prototype_clustering import cluster, collect
from mmseg_semi.models.segmentors.pcr import PCR
from mmseg_semi.registry import DATASETS, HOOKS


def unwrapped(dataset: dict) -> Iterator[dict]:
    """The configs of the data sets inside wrappers like ``ConcatDataset`` and ``RepeatDataset``, once each."""
    parts = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not parts:
        yield dataset
    for part in parts:
        yield from unwrapped(part)


def labeled_samples(cfg, rank: int = 0, world_size: int = 1) -> Iterator[dict]:
    """This rank's share of the labeled training images, through the validation pipeline (no random augmentation).

    Raises:
        ValueError: If validation has no pipeline, or a sample cannot be made; names the files.
    """
    dataset_cfg = copy.deepcopy(cfg.train_dataloader.dataset)
    dataset_cfg = dataset_cfg.datasets[0] if 'datasets' in dataset_cfg else dataset_cfg.labeled
    pipeline = next(unwrapped(cfg.val_dataloader.dataset)).get('pipeline')
    if pipeline is None:
        raise ValueError('val_dataloader.dataset has no pipeline, through which prototypes see the labeled images')
    parts = [DATASETS.build(dict(one, pipeline=copy.deepcopy(pipeline))) for one in unwrapped(dataset_cfg)]
    everything = ((part, i) for part in parts for i in range(len(part)))
    for part, i in itertools.islice(everything, rank, None, world_size):
        with naming_files(part, i):
            sample = part[i]
        yield sample


def pad_label(label: Tensor, image: Sequence[int], padded: Sequence[int], ignore_index: int = 255) -> Tensor:
    """Adds to a label map what ``data_preprocessor.test_cfg`` added to its image at the bottom and right.

    Args:
        label (Tensor): [H, W]; the image may have been resized since.
        image (Sequence[int]): Height and width of the image.
        padded (Sequence[int]): The same after padding.
        ignore_index (int): What the head ignores. Defaults to 255.

    Returns:
        Tensor: [H', W'] with ``ignore_index`` in the padding.
    """
    bottom, right = (round(side * new / old) - side for side, old, new in zip(label.shape, image, padded, strict=True))
    return torch.nn.functional.pad(label, (0, right, 0, bottom), value=ignore_index)


def cluster_labeled_pixels(model: PCR, cfg, seed: int) -> Tuple[Tensor, Tensor]:
    """Runs the student over the labeled images and clusters its features on rank 0.

    Args:
        model (PCR): Unwrapped; left in the mode it came in.
        cfg (Config): Of the run; names the labeled images and the validation pipeline.
        seed (int): Of the pixel sample and of k-means.

    Returns:
        tuple[Tensor, Tensor]: Bank [C, K, D] and ``class_valid`` [C], on the CPU; of zeros on ranks other than 0.
    """
    rank, world_size = get_dist_info()
    head, ignore = model.prototype_head, model.decode_head.ignore_index
    was_training = model.training

    def network_inputs() -> Iterator[Tuple[Tensor, Tensor]]:
        for sample in labeled_samples(cfg, rank, world_size):
            batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
            inputs = model.data_preprocessor(batch, False)['inputs']
            label = sample['data_samples'].gt_sem_seg.data.squeeze(0)
            yield inputs, pad_label(label, sample['inputs'].shape[1:], inputs.shape[2:], ignore)

    def feature_of(image: Tensor) -> Tensor:
        model.decode_head(model.extract_feat(image))
        return model.tap.pop()

    model.eval()
    generator = torch.Generator().manual_seed(seed + rank)
    reservoir = collect(network_inputs(), feature_of, head.num_classes, model.align_corners, generator,
                        ignore_index=ignore)
    model.train(was_training)
    bank = torch.zeros(head.bank.shape)
    class_valid = torch.zeros(head.class_valid.shape, dtype=torch.bool)
    parts = gather_object(reservoir)  # None on ranks other than 0
    if parts is not None:
        for other in parts[1:]:
            reservoir.merge(other)
        bank, class_valid = cluster(reservoir, head.num_prototypes, head.channels, seed)
    return bank, class_valid


def load_prototypes(path: str) -> dict:
    """Reads a file of ``tools/make_prototypes.py``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read or does not hold ``bank`` and ``class_valid``.
    """
    make = f'`python tools/make_prototypes.py CONFIG CHECKPOINT --out {path}`'
    if not Path(path).is_file():
        raise FileNotFoundError(f'prototypes: no file {path}; make it with {make}')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # of many types; their texts name other remedies, and no file
        raise ValueError(f'prototypes: {path}: cannot be read ({type(error).__name__}), so it is broken or no file of '
                         f'{make}') from error
    if not isinstance(content, dict) or not all(torch.is_tensor(content.get(key)) for key in ('bank', 'class_valid')):
        raise ValueError(f'prototypes: {path}: must hold a dict with the tensors bank and class_valid, found '
                         f'{sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__}')
    return content


@HOOKS.register_module()
class PrototypeInitHook(Hook):
    """Initializes the prototypes of :class:`PCR` once; a resumed run keeps those of its checkpoint.

    With ``file``, they are there from the first iteration (the published way), whatever ``load_from`` brings. Without,
    those of ``load_from`` stay; if there are none, the current student is run over the labeled images when the
    semi-supervised phase starts, and its pixels are clustered; until then the prototype losses are 0.

    Args:
        file (str, optional): A file of ``tools/make_prototypes.py``.
    """

    # After EMATeacherHook, which tells the model the iteration.
    priority = 'BELOW_NORMAL'

    def __init__(self, file: Optional[str] = None) -> None:
        self.file = file
        self.done = False

    def before_train(self, runner: Runner) -> None:
        """Loads the file, if there is one, before any step.

        Raises:
            TypeError: If the model is not a :class:`PCR`.
            FileNotFoundError: If there is no such file.
            ValueError: If the file does not fit the model, or the labeled images could not be clustered later.
        """
        model = unwrap(runner)
        if not isinstance(model, PCR):
            raise TypeError(f'PrototypeInitHook needs model.type="PCR", found {type(model).__name__}')
        self.model = model
        classes = runner.train_dataloader.dataset.metainfo.get('classes') or ()
        if classes and len(classes) != model.num_classes:
            raise ValueError(f'the labeled set has {len(classes)} classes, decode_head.num_classes is '
                             f'{model.num_classes}')
        # A run that starts with the weights of another has iteration 0, one that goes on has not.
        self.done = bool(model.prototype_head.initialized) and not (self.file and runner.iter == 0)
        if self.done:
            runner.logger.info('Prototypes come from the checkpoint' + (f'; {self.file} is not read.' if self.file
                                                                        else '.'))
        elif self.file:
            content = load_prototypes(self.file)
            try:
                self._set(runner, content['bank'], content['class_valid'], source=self.file)
            except ValueError as error:
                raise ValueError(f'prototypes: {self.file}: {error}') from error
        else:
            self._check_labeled(runner)

    def _check_labeled(self, runner: Runner) -> None:
        """Finds out now what would fail in the middle of training."""
        if runner.cfg.get('val_dataloader') is None:
            raise ValueError('PrototypeInitHook reads the labeled images through val_dataloader.dataset.pipeline, but '
                             'the config has no val_dataloader; add one, or give PrototypeInitHook(file=...)')
        if 'gt_sem_seg' not in next(labeled_samples(runner.cfg))['data_samples']:
            raise ValueError('PrototypeInitHook: val_dataloader.dataset.pipeline has no LoadAnnotations')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        """Clusters at the first semi-supervised iteration."""
        if self.done or runner.iter < self.model.start_iter:
            return
        bank, class_valid = cluster_labeled_pixels(self.model, runner.cfg, runner.seed)
        device = self.model.prototype_head.bank.device
        bank, class_valid = bank.to(device), class_valid.to(device).to(torch.uint8)
        broadcast(bank)
        broadcast(class_valid)
        self._set(runner, bank, class_valid.bool(), source='k-means on the labeled images')

    def _set(self, runner: Runner, bank: Tensor, class_valid: Tensor, source: str) -> None:
        self.model.prototype_head.set_bank(bank, class_valid)
        self.done = True
        classes = (runner.train_dataloader.dataset.metainfo or {}).get('classes') or range(len(class_valid))
        missing = [str(name) for name, ok in zip(classes, class_valid.tolist(), strict=True) if not ok]
        note = f'; no labeled pixel of: {", ".join(missing)}' if missing else ''
        runner.logger.info(f'Prototypes from {source}: {bank.shape[0]} classes x {bank.shape[1]} x {bank.shape[2]}'
                           f'{note}.')
