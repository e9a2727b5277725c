"""A stage that labels images with a trained model."""
import copy
import hashlib
import io
import logging
from contextlib import closing, contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from PIL import Image
from torch import Tensor

from mmseg_semi.datasets import lists_nothing
from mmseg_semi.engine.runner.image_records import image_files, share_records
from mmseg_semi.engine.runner.samples import read_samples, worker_number
from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.files import whole
from mmseg_semi.registry import DATASETS, MODELS, STAGES

MAX_CLASSES = 255  # of a mask of 8 bits; 255 itself is ignore
# Most pixels of one forward, unless a single image has more: two of Cityscapes at their own size. Beyond it a GPU is
# busy anyway, and a mirror image in the same forward would double what the largest scale needs.
FORWARD_PIXELS = 2**22
# Largest logits of the images labeled together whose softmax is summed on the device: 1 GiB, of which it holds three
# copies for a moment. Those of one of Cityscapes at twice its size are 0.6. A constant, not what is free: the sum must
# not depend on the GPU.
DEVICE_VALUES = 2**28


def native_pipeline(plan_cfg: Optional[dict]) -> List[dict]:
    """Images at their own size, read as the plan's training set reads them: for datasets without a pipeline."""
    loader = _loader((plan_cfg or {}).get('train_dataloader', {}).get('dataset') or {})
    return [loader or dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


def _loader(dataset: dict) -> Optional[dict]:
    if dataset.get('pipeline'):
        return dict(dataset['pipeline'][0])
    parts = [dataset[key] for key in ('labeled', 'primary', 'dataset') if isinstance(dataset.get(key), dict)]
    return next(filter(None, map(_loader, [*parts, *dataset.get('datasets', [])])), None)


@contextmanager
def own_kernels(plan_cfg: Optional[dict]) -> Iterator[None]:
    """Within the block PyTorch picks the kernels that the plan asks for, whatever a training before has set.

    A training sets them for its process: a plan that runs through and one that goes on after it would otherwise label
    with different ones. And ``cudnn.benchmark`` tries all of them for each new size, of which images have many.

    Args:
        plan_cfg (dict, optional): Its ``randomness.deterministic`` holds, by default False.
    """
    deterministic = bool(((plan_cfg or {}).get('randomness') or {}).get('deterministic'))
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    enforced = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.benchmark, cudnn.deterministic = False, deterministic
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        torch.use_deterministic_algorithms(enforced[0], warn_only=enforced[1])


def model_settings(cfg: Config) -> dict:
    """The model of a config as ``Runner`` builds it: a ``data_preprocessor`` beside it is its own."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return model


def check_channels(where: str, num_classes: int, out_channels: Optional[int]) -> None:
    """Compares the outputs of a head with its classes.

    Raises:
        ValueError: If there are fewer outputs, as of a sigmoid over two classes: their softmax says nothing.
    """
    if out_channels not in (None, num_classes):
        raise ValueError(f'{where}: decode_head.out_channels={out_channels} for num_classes={num_classes}; expected a '
                         f'channel per class, whose softmax labels: out_channels={num_classes} and a loss with '
                         'use_sigmoid=False')


def preprocessor_divisor(cfg: Config) -> int:
    """What a model's preprocessor pads the sides of test images to multiples of; 1 for none."""
    return ((model_settings(cfg).get('data_preprocessor') or {}).get('test_cfg') or {}).get('size_divisor') or 1


def scaled_side(side: int, scale: float, divisor: int) -> int:
    """A side at another scale, a multiple of ``divisor``."""
    return max(1, int(side * scale)) if divisor == 1 else max(1, round(side * scale / divisor)) * divisor


@torch.no_grad()
def predict_probability(model: EncoderDecoder, images: Tensor, scales: Sequence[float], flip: bool,
                        divisor: int = 1) -> Tensor:
    """Mean of the softmax over scales and mirrored images (ST++ spec section 4).

    Args:
        model (EncoderDecoder): In eval mode.
        images (Tensor): [N, 3, H, W], as the data preprocessor returns them.
        scales (Sequence[float]): Factors of the size.
        flip (bool): Whether each scale is also predicted mirrored, in the same forward up to ``FORWARD_PIXELS``.
        divisor (int): What the sides at each scale are multiples of, as the patches of a ViT ask for.

    Returns:
        Tensor: [N, C, H, W] float32, on the CPU if it is large (``DEVICE_VALUES``).
    """
    size = tuple(images.shape[2:])
    sizes = [tuple(scaled_side(side, scale, divisor) for side in size) for scale in scales]
    largest = len(images) * model.out_channels * max(height * width for height, width in (size, *sizes))
    device = images.device if largest <= DEVICE_VALUES else torch.device('cpu')
    total = torch.zeros(len(images), model.out_channels, *size, device=device)
    for scaled in sizes:
        x = images if scaled == size else resize(images, scaled, mode='bilinear', align_corners=False)
        views, done = torch.cat([x, x.flip(3)]) if flip else x, 0
        for part in views.split(max(1, FORWARD_PIXELS // (scaled[0] * scaled[1]))):
            metas = [dict(img_shape=scaled, ori_shape=scaled, pad_shape=scaled) for _ in part]
            # Without a name the logits are gone before the next forward.
            _add_views(total, model.inference(part, metas).to(device), done, model.align_corners)
            done += len(part)
    return total.div_(len(scales) * (1 + flip))


def _add_views(total: Tensor, logits: Tensor, first: int, align_corners: bool) -> None:
    """Adds the softmax of some views, of the N images and then of their mirrors, at the size of ``total``."""
    for view, one in enumerate(logits.split(1), first):  # one at a time: copies are as large as logits
        probability = one.float().softmax(dim=1)
        if probability.shape[2:] != total.shape[2:]:
            probability = resize(probability, total.shape[2:], mode='bilinear', align_corners=align_corners)
        total[view % len(total)] += (probability if view < len(total) else probability.flip(3))[0]


def encode_mask(label: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """A palette PNG of class indices, the same bytes for the same mask.

    Args:
        label (ndarray): [H, W] uint8.
        palette (Sequence[Sequence[int]]): RGB of each class.
    """
    picture = Image.fromarray(label)
    picture.putpalette([channel for color in palette for channel in color])
    buffer = io.BytesIO()
    picture.save(buffer, format='PNG')
    return buffer.getvalue()


def load_trained(cfg: Config, checkpoint: str) -> Tuple[EncoderDecoder, dict]:
    """The model of a config with the weights of a checkpoint, in eval mode on the device; and its dataset's meta.

    Raises:
        ValueError: If its head has not one channel per class.
    """
    model = MODELS.build(model_settings(cfg))
    check_channels(checkpoint, model.num_classes, model.out_channels)
    content = load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return model.to(get_device()).eval(), content.get('meta', {}).get('dataset_meta') or {}


def predict_labels(model: EncoderDecoder, samples: Sequence[dict], scales: Sequence[float] = (1.0, ),
                   flip: bool = False, divisor: int = 1) -> List[np.ndarray]:
    """Classes of whole images at the size of their files, whatever size their pipeline gave them.

    Args:
        model (EncoderDecoder): In eval mode.
        samples (Sequence[dict]): ``inputs`` and ``data_samples`` of ``PackSegInputs``; those of one size are predicted
            together.
        scales (Sequence[float]): See :func:`predict_probability`.
        flip (bool): See :func:`predict_probability`.
        divisor (int): See :func:`predict_probability`.

    Returns:
        list[ndarray]: [H, W] uint8 each.
    """
    labels: Dict[int, np.ndarray] = {}
    for height, width in {tuple(sample['inputs'].shape[1:]) for sample in samples}:
        group = {i: sample for i, sample in enumerate(samples) if sample['inputs'].shape[1:] == (height, width)}
        batch = {key: [sample[key] for sample in group.values()] for key in ('inputs', 'data_samples')}
        images = model.data_preprocessor(batch, False)['inputs']
        probability = predict_probability(model, images, scales, flip, divisor)[:, :, :height, :width]
        for (i, sample), one in zip(group.items(), probability.split(1), strict=True):
            size = tuple(sample['data_samples'].ori_shape[:2])
            if size != (height, width):
                one = resize(one, size, mode='bilinear', align_corners=model.align_corners)
            labels[i] = one[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return [labels[i] for i in range(len(samples))]


def predict_label(model: EncoderDecoder, sample: dict) -> np.ndarray:
    """Classes [H, W] of one image, without test-time augmentation (:func:`predict_labels`)."""
    return predict_labels(model, [sample])[0]


@STAGES.register_module()
class PseudoLabelStage(Stage):
    """Labels every image of a dataset; one palette PNG per image, at the size of the image's file.

    Ranks share the images. A mask that exists and has the digest of its manifest line is not made again. A dataset with
    an empty list gives no masks, with a warning. Artifact: ``masks``, a folder that mirrors the images' and holds
    ``manifest.jsonl``: for each image its ``id`` (path without suffix), ``file``, ``size`` [H, W], ``sha256`` and
    ``histogram`` (pixels per class).

    Args:
        cfg (str): Config of the model, such as ``'sup:config'``.
        checkpoint (str): Such as ``'sup:best'``.
        dataset (dict): An ``UnlabeledDataset``; without ``pipeline``, images are read at their own size.
        scales (Sequence[float]): Scales of test-time augmentation, positive. Defaults to ST++'s.
        flip (bool): Whether to mirror, too. Defaults to True.
        num_workers (int): Processes per rank that read images. Defaults to those of the plan's ``val_dataloader``.
        batch_size (int): Neighbors in the list, of which those of one size are labeled together. Worth it for small
            images of one size. Part of the settings: sums of another order may round to another label. Defaults to 1.

    Raises:
        ValueError: If a scale or ``batch_size`` is not positive, or there are more than 255 classes.
    """

    artifacts = ('masks', )
    mends = ('masks', )

    def __init__(self, cfg: str, checkpoint: str, dataset: dict, scales: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0),
                 flip: bool = True, num_workers: Optional[int] = None, batch_size: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_workers = worker_number(num_workers, self.plan_cfg)
        if not scales or min(scales) <= 0:
            raise ValueError(f'PseudoLabelStage.scales must be positive numbers, found {list(scales)}')
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f'PseudoLabelStage.batch_size must be a whole number from 1 on, found {batch_size!r}')
        self.cfg, self.checkpoint, self.scales, self.flip = cfg, checkpoint, tuple(scales), flip
        self.batch_size = batch_size
        self.dataset = {'type': 'UnlabeledDataset', 'pipeline': native_pipeline(self.plan_cfg), **dataset}

    def settings(self) -> dict:
        """The dataset and how it is labeled; model and checkpoint are inputs."""
        settings = dict(dataset=self.dataset, scales=self.scales, flip=self.flip, cfg=self.cfg,
                        checkpoint=self.checkpoint)
        # A plan that was labeled before there was this option is still done.
        return settings if self.batch_size == 1 else dict(settings, batch_size=self.batch_size)

    def run(self) -> Dict[str, Path]:
        """Labels what is not labeled yet."""
        with own_kernels(self.plan_cfg):
            return self._label()

    def _label(self) -> Dict[str, Path]:
        masks = self.folder / 'masks'
        masks.mkdir(parents=True, exist_ok=True)
        if lists_nothing(self.dataset):
            print_log(f'{self.folder.name}: {self.dataset["ann_file"]} is empty, there is nothing to label.', 'current',
                      level=logging.WARNING)
            share_records(masks, 'manifest', [], bool, lambda _: (record for record in ()))
            return dict(masks=masks)
        cfg = Config.fromfile(self.cfg)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        dataset = DATASETS.build(self.dataset)
        model, palette = self._load(cfg)
        keys = list(image_files(dataset))
        # What the pipeline or the preprocessor rounds sizes to, the other scales are rounded to as well.
        divisor = max([preprocessor_divisor(cfg), *(t.get('size_divisor', 1) for t in self.dataset['pipeline'])])

        def unchanged(entry: dict) -> bool:
            file = masks / entry['file']
            return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == entry['sha256']

        def label(indices: List[int]) -> Iterator[dict]:
            with closing(read_samples(dataset, indices, self.num_workers)) as samples:
                for _, group in groupby(indices, lambda index: index // self.batch_size):
                    block = list(group)
                    labels = predict_labels(model, list(islice(samples, len(block))), self.scales, self.flip, divisor)
                    for index, mask in zip(block, labels, strict=True):
                        content, name = encode_mask(mask, palette), f'{keys[index]}.png'
                        with whole(masks / name) as part:
                            part.write_bytes(content)
                        yield dict(file=name, size=list(mask.shape), sha256=hashlib.sha256(content).hexdigest(),
                                   histogram=np.bincount(mask.ravel(), minlength=model.num_classes).tolist())

        share_records(masks, 'manifest', keys, unchanged, label, self.batch_size)
        return dict(masks=masks)

    def _load(self, cfg: Config) -> Tuple[EncoderDecoder, List[Sequence[int]]]:
        """The model, and the colors of its classes."""
        model, meta = load_trained(cfg, self.checkpoint)
        if not 1 < model.num_classes <= MAX_CLASSES:
            raise ValueError(f'{self.cfg} has {model.num_classes} classes; expected 2..{MAX_CLASSES}, as a mask has 8 '
                             'bits and 255 is ignore')
        palette = meta.get('palette')
        if palette is None:
            palette = np.random.default_rng(0).integers(256, size=(model.num_classes, 3)).tolist()
        return model, palette
