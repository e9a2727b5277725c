"""A stage that labels images with a trained model."""
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import ProgressBar
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from PIL import Image
from torch import Tensor

from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.engine.runner.state import write_text
from mmseg_semi.registry import DATASETS, MODELS, STAGES


@torch.no_grad()
def predict_probability(model: EncoderDecoder, image: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Mean of the softmax over scales and mirrored images (ST++ spec section 4).

    Args:
        model (EncoderDecoder): In eval mode.
        image (Tensor): [1, 3, H, W], as the data preprocessor returns it.
        scales (Sequence[float]): Factors of the size.
        flip (bool): Whether each scale is also predicted mirrored.

    Returns:
        Tensor: [C, H, W] float32.
    """
    size = tuple(image.shape[2:])
    total = 0
    for scale in scales:
        scaled = tuple(max(1, int(side * scale)) for side in size)
        x = image if scaled == size else resize(image, scaled, mode='bilinear', align_corners=False)
        meta = dict(img_shape=scaled, ori_shape=scaled, pad_shape=scaled)
        for mirrored in (False, True)[:1 + flip]:
            logits = model.inference(x.flip(3) if mirrored else x, [meta]).float()
            probability = resize(logits.softmax(dim=1), size, mode='bilinear', align_corners=model.align_corners)
            total = total + (probability.flip(3) if mirrored else probability)
    return total[0] / (len(scales) * (1 + flip))


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


def read_manifest(path: Path) -> List[dict]:
    """The lines of a manifest; a last line that was cut off is left out."""
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


@STAGES.register_module()
class PseudoLabelStage(Stage):
    """Labels every image of a dataset; one palette PNG per image, at the image's own size.

    Ranks share the images. A mask that exists and has the digest of its manifest line is not made again. Artifact:
    ``masks``, a folder that mirrors the images' and holds ``manifest.jsonl``: for each image its ``id`` (path without
    suffix), ``file``, ``size`` [H, W], ``sha256`` and ``histogram`` (pixels per class).

    Args:
        cfg (str): Config of the model, such as ``'sup:config'``.
        checkpoint (str): Such as ``'sup:best'``.
        dataset (dict): An ``UnlabeledDataset``; without ``pipeline``, images are read at their own size.
        scales (Sequence[float]): Scales of test-time augmentation, positive. Defaults to ST++'s.
        flip (bool): Whether to mirror, too. Defaults to True.

    Raises:
        ValueError: If a scale is not positive, or there are more than 255 classes.
    """

    artifacts = ('masks', )

    def __init__(self, cfg: str, checkpoint: str, dataset: dict, scales: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0),
                 flip: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        if not scales or min(scales) <= 0:
            raise ValueError(f'PseudoLabelStage.scales must be positive numbers, found {list(scales)}')
        self.cfg, self.checkpoint, self.scales, self.flip = cfg, checkpoint, tuple(scales), flip
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
        self.dataset = {'type': 'UnlabeledDataset', 'pipeline': pipeline, **dataset}

    def settings(self) -> dict:
        """The dataset and how it is labeled; model and checkpoint are inputs."""
        return dict(dataset=self.dataset, scales=self.scales, flip=self.flip, cfg=self.cfg, checkpoint=self.checkpoint)

    def run(self) -> Dict[str, Path]:
        """Labels what is not labeled yet."""
        cfg = Config.fromfile(self.cfg)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        dataset = DATASETS.build(self.dataset)
        rank, world_size = get_dist_info()
        masks = self.folder / 'masks'
        masks.mkdir(parents=True, exist_ok=True)
        done = self._done(masks)
        if rank == 0:
            for path in masks.rglob('*.part'):
                path.unlink()
        barrier()  # nobody writes while another still reads
        todo = [i for i in range(rank, len(dataset), world_size) if self._id(dataset, i) not in done]
        print_log(f'{self.folder.name}: {len(dataset)} images, {len(done)} labeled before.', 'current')
        model, palette = self._model(cfg)
        bar = ProgressBar(len(todo)) if rank == 0 and todo else None
        with open(masks / f'manifest.rank{rank}.jsonl', 'a') as manifest:
            for entry in self._label(dataset, todo, model, palette, masks):
                manifest.write(json.dumps(entry) + '\n')
                manifest.flush()
                if bar:
                    bar.update()
        barrier()
        if rank == 0:
            entries = {**self._done(masks)}
            write_text(masks / 'manifest.jsonl', ''.join(json.dumps(entries[key]) + '\n' for key in sorted(entries)))
            for path in masks.glob('manifest.rank*.jsonl'):
                path.unlink()
        barrier()
        return dict(masks=masks)

    @staticmethod
    def _id(dataset, index: int) -> str:
        info = dataset.get_data_info(index)
        path = Path(info['img_path'])
        root = Path(dataset.data_prefix['img_path'])
        return path.relative_to(root).with_suffix('').as_posix()

    @staticmethod
    def _done(masks: Path) -> Dict[str, dict]:
        """Manifest entries whose file is there and whole."""
        found = {}
        for path in sorted(masks.glob('manifest*.jsonl')):
            for entry in read_manifest(path):
                file = masks / entry['file']
                if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == entry['sha256']:
                    found[entry['id']] = entry
        return found

    def _model(self, cfg: Config) -> tuple:
        model = MODELS.build(cfg.model)
        if not 1 < model.num_classes <= 255:
            raise ValueError(f'{self.cfg}: {model.num_classes} classes do not fit a mask of 8 bits with 255 = ignore')
        checkpoint = load_checkpoint(model, self.checkpoint, map_location='cpu', strict=True)
        palette = (checkpoint.get('meta', {}).get('dataset_meta') or {}).get('palette')
        if palette is None:
            palette = np.random.default_rng(0).integers(256, size=(model.num_classes, 3)).tolist()
        return model.to(get_device()).eval(), palette

    def _label(self, dataset, indices: Sequence[int], model: EncoderDecoder, palette, masks: Path) -> Iterator[dict]:
        for index in indices:
            sample, key = dataset[index], self._id(dataset, index)
            batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
            image = model.data_preprocessor(batch, False)['inputs']
            height, width = sample['inputs'].shape[1:]
            probability = predict_probability(model, image, self.scales, self.flip)[:, :height, :width]
            label = probability.argmax(dim=0).to(torch.uint8).cpu().numpy()
            content, file = encode_mask(label, palette), masks / f'{key}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f'{file.name}.{os.getpid()}.part')
            part.write_bytes(content)
            part.replace(file)
            yield dict(id=key, file=f'{key}.png', size=list(label.shape), sha256=hashlib.sha256(content).hexdigest(),
                       histogram=np.bincount(label.ravel(), minlength=model.num_classes).tolist())
