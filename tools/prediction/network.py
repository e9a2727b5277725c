"""The segmentor of a config and a checkpoint, and how a picture gets into it."""
import hashlib
import os
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import CheckpointLoader
from mmseg.apis import init_model
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadImageFromNDArray
from torch import nn

from mmseg_semi.environment import allow_own_checkpoints
from mmseg_semi.models.checkpoint import misfits
from mmseg_semi.registry import DATASETS

from .inputs import IMG_SUFFIXES, PHOTOGRAPHS, Kinds, Unreadable

# What predicts; a checkpoint may lack the rest (auxiliary heads, which only training needs).
PREDICTING = ('backbone.', 'neck.', 'decode_head.')


class Picture(NamedTuple):
    """A picture on its way into the network.

    Attributes:
        image (ndarray): [H, W, 3] BGR or [H, W] gray uint8, to be shown.
        inputs (Tensor): [N, h, w], as the pipeline made it.
        sample (SegDataSample): Its meta information.
    """
    image: np.ndarray
    inputs: torch.Tensor
    sample: object


class Prediction(NamedTuple):
    """What the network says about a picture, at its own size.

    Attributes:
        mask (ndarray): [H, W] uint8 class indices.
        confidence (ndarray): [H, W] uint8, probability of that class times 255.
    """
    mask: np.ndarray
    confidence: np.ndarray


class Predictor:
    """A trained segmentor on its device.

    Args:
        cfg (Config): The config it was trained with; edited in place.
        checkpoint (str): Its checkpoint.
        device (str): Such as ``'cuda:0'`` or ``'cpu'``.
        network (str, optional): ``'teacher'`` or ``'student'`` of a semi-supervised model. Defaults to the one that
            the config tests.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If config and checkpoint do not belong together, or the model has no such network.

    Attributes:
        classes (tuple[str]): Names.
        palette (list[tuple]): RGB of each class.
        note (str): What the user should know about them; mostly empty.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str, network: Optional[str] = None) -> None:
        content = _read_checkpoint(checkpoint)
        self.pipeline = test_pipeline(cfg)
        self.model = _build(cfg)
        self.network = _choose(self.model, network)
        state = content.get('state_dict', content)
        _fill(self.model, state, f'{checkpoint} does not fit {cfg.filename}')
        meta = (content.get('meta') or {}).get('dataset_meta') or {}
        self.classes, self.palette, self.note = _classes_and_colors(meta, cfg, checkpoint)
        if self.network == 'model' and any('teacher.' in name for name in state):
            self.note = (f'{checkpoint} holds a teacher, too, but {cfg.filename} has none: its student predicts; give '
                         f'the config of its training for the teacher\n{self.note}').rstrip()
        outputs = max(2, self.model.num_classes)
        if not len(self.classes) == len(self.palette) == outputs or outputs > 256:
            raise ValueError(f'{checkpoint}: {len(self.classes)} class names and {len(self.palette)} colors for a '
                             f'network of {outputs} classes; expected as many of each, 256 at most')
        self.fingerprint = _fingerprint(cfg, checkpoint, (self.network, self.classes, self.palette))
        self._steps = Compose(self.pipeline)
        self.bands = next(m for m in self.model.backbone.modules() if isinstance(m, nn.Conv2d)).in_channels
        self.model.to(device)

    def read(self, source: Union[Path, np.ndarray]) -> Picture:
        """Runs the test pipeline on an image file, or on a video frame [H, W, 3] BGR uint8.

        Raises:
            Unreadable: If the pipeline fails on it.
        """
        try:
            return self._read(source)
        except Exception as error:  # decoders and transforms raise whatever they like
            raise Unreadable(f'{type(error).__name__}: {" ".join(str(error).split())}') from error

    def _read(self, source: Union[Path, np.ndarray]) -> Picture:
        load, *rest = self._steps.transforms
        if isinstance(source, np.ndarray):
            results = LoadImageFromNDArray(to_float32=getattr(load, 'to_float32', False))(dict(img=source))
        else:
            results = load(dict(img_path=str(source)))
        if results is None:
            raise ValueError('the file is no image')
        image = shown(results['img'], loads_bands(self.pipeline))
        for step in rest:
            results = step(results)
        bands = len(results['inputs'])
        if bands != self.bands:
            raise ValueError(f'the image has {bands} bands, the network takes {self.bands}')
        return Picture(image, results['inputs'], results['data_samples'])

    @torch.no_grad()
    def predict(self, pictures: Sequence[Picture]) -> List[Prediction]:
        """Predicts pictures whose ``inputs`` are of one size, as one batch."""
        data = dict(inputs=[p.inputs for p in pictures], data_samples=[p.sample for p in pictures])
        return [self._result(sample) for sample in self.model.test_step(data)]

    @staticmethod
    def _result(sample) -> Prediction:
        mask, logits = sample.pred_sem_seg.data[0], sample.seg_logits.data.float()
        if len(logits) == 1:  # one output for two classes, of which mmseg leaves the probability, no logit
            confidence = torch.where(mask > 0, logits[0], 1 - logits[0])
        else:
            confidence = logits.softmax(dim=0).amax(dim=0)
        return Prediction(mask.to(torch.uint8).cpu().numpy(), (confidence * 255).round().to(torch.uint8).cpu().numpy())


def shown(image: np.ndarray, bands: bool) -> np.ndarray:
    """A picture of a loaded image, [H, W, 3] BGR or [H, W] uint8: of bands, the first three as RGB, or the first.

    A transparency is left out.

    Args:
        image (ndarray): [H, W] or [H, W, N], 0..255. Not changed: transforms may write into it afterwards.
        bands (bool): Whether ``LoadBands`` loaded it, which leaves them in the order of the file.
    """
    if bands:
        image = image[..., 2::-1] if image.shape[2] > 2 else image[..., 0]
    elif image.ndim == 3:
        image = image[..., :3] if image.shape[2] > 2 else image[..., 0]
    return image.astype(np.uint8)


def loads_bands(pipeline: Sequence[dict]) -> bool:
    """Whether a pipeline begins with ``LoadBands``."""
    return bool(pipeline) and _name(pipeline[0]) == 'LoadBands'


def _name(step: dict) -> str:
    """The transform's class, which configs may give itself or by a name with its scope."""
    return getattr(step['type'], '__name__', str(step['type'])).rpartition('.')[2]


def test_pipeline(cfg: Config) -> List[dict]:
    """The transforms of ``tools/test.py`` without those that need a mask; the first one loads the image.

    Raises:
        ValueError: If the config is none to predict with, or the first one does not load an image.
    """
    if 'model' not in cfg or 'test_dataloader' not in cfg and 'test_pipeline' not in cfg:
        raise ValueError(f'{cfg.filename} has no model and test_dataloader; expected the config that '
                         'tools/train.py was given (for self-training, that of a stage)')
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    steps = dataset.get('pipeline') or cfg.get('test_pipeline') or []
    steps = [step for step in steps if _name(step) not in ('LoadAnnotations', 'CheckSegMap')]
    if not loads_bands(steps) and not (steps and 'LoadImage' in _name(steps[0])):
        raise ValueError(f'{cfg.filename}: test_dataloader.dataset.pipeline must begin with LoadImageFromFile or '
                         f'LoadBands, found {[_name(step) for step in steps]}')
    return steps


def kinds_of(cfg: Config) -> Kinds:
    """The files that the test pipeline can load.

    Raises:
        ValueError: As :func:`test_pipeline`.
    """
    # A frame of a video has three bands in OpenCV's order, not those of the files that LoadBands reads.
    return Kinds(images=(*IMG_SUFFIXES, '.npy'), videos=()) if loads_bands(test_pipeline(cfg)) else PHOTOGRAPHS


def _read_checkpoint(path: str) -> dict:
    is_url = '://' in path
    if not is_url and not os.path.isfile(path):
        raise FileNotFoundError(f'no checkpoint {path}; training writes them as work_dirs/CONFIG_NAME/iter_*.pth')
    allow_own_checkpoints()  # OneDL's mmengine takes the permission back whenever it has loaded something
    try:
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except Exception as error:
        reason = str(error).strip().splitlines()[:1]
        raise ValueError(f'{path} is no checkpoint that torch can read ({type(error).__name__} {"".join(reason)}); '
                         'expected a file that tools/train.py wrote') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: a checkpoint is a dict of tensors, found a {type(content).__name__}')
    return content


def _build(cfg: Config) -> nn.Module:
    try:
        return revert_sync_batchnorm(init_model(cfg, device='cpu'))  # SyncBN has no CPU kernel
    except Exception as error:  # registries, asserts and constructors raise whatever they like
        raise ValueError(f'{cfg.filename}: its model cannot be built: {type(error).__name__}: {error}') from error


def _choose(model: nn.Module, network: Optional[str]) -> str:
    """Sets who predicts; returns its name."""
    if not hasattr(model, 'eval_with'):
        if network is not None:
            raise ValueError(f'--network {network}: {type(model).__name__} is a single network; leave the option out')
        return 'model'
    if network is not None:
        model.eval_with = network
    elif model.eval_with == 'both':  # the teacher's prediction is the result, the student's would be thrown away
        model.eval_with = 'teacher'
    return model.eval_with


def _fill(model: nn.Module, state: dict, problem: str) -> None:
    """Loads the tensors.

    Raises:
        ValueError: If one has another shape, or one that predicts is missing.
    """
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    wrong = misfits(state, model)
    if wrong:
        name, found, expected = wrong[0], tuple(state[wrong[0]].shape), tuple(model.state_dict()[wrong[0]].shape)
        raise ValueError(f'{problem}: {name} is {found} in the checkpoint and {expected} in the config (number of '
                         'classes? backbone?); give the config of its training, work_dirs/CONFIG_NAME/CONFIG_NAME.py')
    missing = [name for name in model.load_state_dict(state, strict=False).missing_keys
               if name.removeprefix('teacher.').startswith(PREDICTING)]
    if missing:
        raise ValueError(f'{problem}: {len(missing)} tensors are missing, the first is {missing[0]}; give the config '
                         'of its training, work_dirs/CONFIG_NAME/CONFIG_NAME.py')


def _classes_and_colors(meta: dict, cfg: Config, checkpoint: str) -> Tuple[tuple, List[tuple], str]:
    """Names and colors of the checkpoint; what it lacks is the config's, and colors are made up if neither has them.

    Args:
        meta (dict): ``dataset_meta`` of the checkpoint.
        cfg (Config): Whose test dataset is asked.
        checkpoint (str): Its name in messages.

    Returns:
        tuple[tuple, list[tuple], str]: Names, RGB values, and a line about what the checkpoint lacks.

    Raises:
        ValueError: If neither names the classes.
    """
    missing = [what for key, what in (('classes', 'class names'), ('palette', 'colors of the classes'))
               if not meta.get(key)]
    own = _dataset_meta(cfg) if missing else {}
    classes = meta.get('classes') or own.get('classes')
    if not classes:
        raise ValueError(f'neither {checkpoint} (meta.dataset_meta.classes) nor {cfg.filename} '
                         '(test_dataloader.dataset.metainfo.classes) names the classes; add them to the config')
    note = f'{checkpoint} has no {" and no ".join(missing)}: those of {cfg.filename} are taken' if missing else ''
    palette = meta.get('palette') or own.get('palette') or ()
    if not meta.get('palette') and len(palette) != len(classes):
        names = '' if meta.get('classes') else f'{checkpoint} has no class names: those of {cfg.filename} are taken; '
        note = (f'{names}{checkpoint} has no colors of the classes and {cfg.filename} none for {len(classes)} classes: '
                'they are made up')
        palette = BaseSegDataset(metainfo=dict(classes=classes), lazy_init=True).metainfo['palette']
    return tuple(classes), [tuple(color) for color in palette], note


def _dataset_meta(cfg: Config) -> dict:
    """Metainfo of the test dataset, whose files need not be there; empty if the config has none."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset:
        return {}
    try:
        return DATASETS.build({**dataset, 'lazy_init': True}).metainfo
    except Exception as error:  # such as names and colors that do not belong together
        raise ValueError(f'{cfg.filename}: test_dataloader.dataset cannot be built: {error}') from error


def _fingerprint(cfg: Config, checkpoint: str, choices: tuple) -> str:
    """Digest of everything that determines a mask, its colors included, but the image."""
    sha = hashlib.sha256(repr((cfg.model.to_dict(), test_pipeline(cfg), choices)).encode())
    if os.path.isfile(checkpoint):
        with open(checkpoint, 'rb') as file:
            while block := file.read(1 << 20):
                sha.update(block)
    else:
        sha.update(checkpoint.encode())
    return sha.hexdigest()
