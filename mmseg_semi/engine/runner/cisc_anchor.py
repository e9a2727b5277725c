"""The score of CISC-R: images whose labels agree with the mean feature of each class are reliable."""
import random
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import all_reduce, barrier, broadcast_object_list, get_dist_info
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from mmseg.datasets import BaseSegDataset
from torch import Tensor

from mmseg_semi.datasets import ClassIndex, image_ids
from mmseg_semi.datasets.pseudo_labeled import check_mask, read_mask
from mmseg_semi.engine.runner.image_records import read_records, share_records
from mmseg_semi.engine.runner.pseudo_label_stage import load_trained
from mmseg_semi.engine.runner.samples import read_samples
from mmseg_semi.engine.runner.select_stage import StageScorer
from mmseg_semi.files import whole
from mmseg_semi.models.losses import anchor_scores, image_score, masked_average_pool
from mmseg_semi.models.segmentors.guided_encoder_decoder import GuidedEncoderDecoder
from mmseg_semi.registry import DATASETS, STAGE_SCORERS

IGNORE = 255


@contextmanager
def fixed_draws(seed: int) -> Iterator[None]:
    """Within the block transforms draw from this seed; afterwards as if it had not been."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


class FixedCrops:
    """The samples of a labeled set, several of each image: the same crops whoever makes them, and whenever."""

    def __init__(self, labeled: BaseSegDataset, repeats: int) -> None:
        self.labeled, self.repeats = labeled, repeats

    def __len__(self) -> int:
        return len(self.labeled) * self.repeats

    def __getitem__(self, index: int) -> dict:
        with fixed_draws(index):
            return self.labeled[index % len(self.labeled)]

    def get_data_info(self, index: int) -> dict:
        """Files of a sample."""
        return self.labeled.get_data_info(index % len(self.labeled))


class WholeImages:
    """Some images of a labeled set at their own size: ``(sample, mask [H, W], path of the mask)``."""

    def __init__(self, labeled: BaseSegDataset, positions: Sequence[int], pipeline: Compose) -> None:
        self.labeled, self.positions, self.pipeline = labeled, positions, pipeline
        self.load = next(t for t in labeled.pipeline.transforms if isinstance(t, LoadAnnotations))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tuple[dict, np.ndarray, str]:
        info = self.get_data_info(index)
        return self.pipeline(dict(info)), self.load(dict(info))['gt_seg_map'], info['seg_map_path']

    def get_data_info(self, index: int) -> dict:
        """Files of a sample."""
        return self.labeled.get_data_info(self.positions[index])


@STAGE_SCORERS.register_module()
class CISCAnchor(StageScorer):
    """Cross-entropy between similarity to class anchors and labels (CISC-R spec section 6); low is reliable.

    The anchor ``a_c`` is the mean feature of class ``c`` over weakly augmented labeled crops. An image scores the sum
    of ``r(x, y, c)`` over the classes of its pseudo-label; the labeled images of each class are ranked by
    ``r(x, GT, c)``, and the better half of every list are the guides of the next stages.

    Artifacts: ``anchors`` (``anchors.npz``: ``anchors`` [C, D], ``valid`` [C] bool, ``images`` [C], how many images
    each mean is of) and ``guide_index`` (a :class:`ClassIndex`).

    Args:
        cfg (str): Config of a :class:`CISCPair` or :class:`CISCRectify`, such as ``'sup:config'``.
        checkpoint (str): Such as ``'sup:best'``.
        labeled (dict): The labeled set with its training pipeline.
        index (str): Class index of this set, such as ``'index:class_index'``.
        masks (str or Sequence[str]): Folders of the pseudo-labels; the first that holds one gives it.
        reduce (str): ``'sum'`` over the classes of an image, as published, or ``'mean'``, which does not rank images of
            many classes last.
        guide_ratio (float): Share of each list that is kept, rounded down, in (0, 1].
        min_keep (int): Least number of guides per class; published: 0.
        repeats (int): Crops of each labeled image for the anchors, > 0. Published: 4 on Cityscapes.

    Raises:
        ValueError: If an option is unknown or out of range.
        TypeError: When it runs, if the model is another one.
    """

    artifacts = ('anchors', 'guide_index')
    higher_is_better = False

    def __init__(self,
                 cfg: str,
                 checkpoint: str,
                 labeled: dict,
                 index: str,
                 masks: Union[str, Sequence[str]],
                 reduce: str = 'sum',
                 guide_ratio: float = 0.5,
                 min_keep: int = 1,
                 repeats: int = 1) -> None:
        for name, value, fits, expected in (
            ('reduce', reduce, reduce in ('sum', 'mean'), "'sum' or 'mean'"),
            ('guide_ratio', guide_ratio, 0 < guide_ratio <= 1, 'in (0, 1]'),
            ('min_keep', min_keep, min_keep >= 0, 'at least 0'),
            ('repeats', repeats, repeats >= 1, 'at least 1'),
        ):
            if not fits:
                raise ValueError(f'CISCAnchor.{name} must be {expected}, found {value!r}')
        self.cfg, self.checkpoint, self.labeled_cfg, self.index = cfg, checkpoint, labeled, index
        self.masks = [masks] if isinstance(masks, str) else list(masks)
        self.reduce, self.guide_ratio, self.min_keep, self.repeats = reduce, guide_ratio, min_keep, repeats

    def settings(self) -> dict:
        """Every option."""
        return dict(cfg=self.cfg, checkpoint=self.checkpoint, labeled=self.labeled_cfg, index=self.index,
                    masks=self.masks, reduce=self.reduce, guide_ratio=self.guide_ratio, min_keep=self.min_keep,
                    repeats=self.repeats)

    # ---- what comes before the scores ---------------------------------------------------------------------------

    def prepare(self, folder: Path, dataset: BaseSegDataset) -> Dict[str, Path]:
        """Loads the model, makes the anchors and ranks the guides."""
        cfg = Config.fromfile(self.cfg)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.model, _ = load_trained(cfg, self.checkpoint)
        if not isinstance(self.model, GuidedEncoderDecoder):
            raise TypeError(f'CISCAnchor.cfg must be that of a CISCPair or CISCRectify, found '
                            f'{type(self.model).__name__} in {self.cfg}')
        self.root = Path(dataset.data_prefix['img_path'])
        self.pipeline = dataset.pipeline
        labeled = DATASETS.build(self.labeled_cfg)
        index = ClassIndex.load(self.index, image_ids(labeled))
        paths = dict(anchors=folder / 'anchors.npz', guide_index=folder / 'guide_index.json')
        self._load_anchors(paths['anchors'], labeled)
        self._rank_guides(paths['guide_index'], labeled, index, folder)
        return paths

    def _load_anchors(self, path: Path, labeled: BaseSegDataset) -> None:
        rank, _ = get_dist_info()
        exists: List[Optional[bool]] = [path.is_file()]
        broadcast_object_list(exists)
        if not exists[0]:
            anchors, images = self._make_anchors(labeled)
            if rank == 0:
                with whole(path) as part:
                    np.savez(part, anchors=anchors.cpu().numpy(), valid=(images > 0).cpu().numpy(),
                             images=images.long().cpu().numpy())
            barrier()
        device = next(self.model.parameters()).device
        with np.load(path) as content:
            self.anchors, self.valid = (torch.from_numpy(content[name]).to(device) for name in ('anchors', 'valid'))

    def _make_anchors(self, labeled: BaseSegDataset) -> Tuple[Tensor, Tensor]:
        """Means [C, D] of the vectors of the images that show a class, and the number of these [C]."""
        rank, world_size = get_dist_info()
        device, classes = next(self.model.parameters()).device, self.model.num_classes
        total = torch.zeros(classes, self.model.tap.channels, dtype=torch.float64, device=device)
        images = torch.zeros(classes, dtype=torch.float64, device=device)
        crops = FixedCrops(labeled, self.repeats)
        todo = range(len(crops))[rank::world_size]
        bar = ProgressBar(len(todo)) if rank == 0 else None
        with closing(read_samples(crops, todo, self.num_workers)) as contents:
            for sample in contents:
                features, samples, _ = self._features(sample, training=True)
                member = samples[0].gt_sem_seg.data == torch.arange(classes, device=device)[:, None, None]
                total += masked_average_pool(features, member[None], self.model.guidance.pool_eps)[0]
                images += member.flatten(1).any(dim=1)
                if bar:
                    bar.update()
        if bar:
            bar.file.write('\n')
        all_reduce(total)
        all_reduce(images)
        return (total / images.clamp(min=1)[:, None]).float(), images

    def _rank_guides(self, path: Path, labeled: BaseSegDataset, index: ClassIndex, folder: Path) -> None:
        """Ranks the labeled images of every class by their own scores on the whole image."""
        members: Dict[str, List[int]] = {}
        for c, ids in enumerate(index.lists):
            for key in ids:
                members.setdefault(key, []).append(c)
        keys, positions = sorted(members), {key: i for i, key in enumerate(image_ids(labeled))}
        images = WholeImages(labeled, [positions[key] for key in keys], self.pipeline)

        def make(indices: List[int]) -> Iterator[dict]:
            with closing(read_samples(images, indices, self.num_workers)) as contents:
                for i, content in zip(indices, contents, strict=True):
                    scores, _ = self._scores(*content)
                    yield dict(scores={str(c): float(scores[c]) for c in members[keys[i]]})

        records = share_records(folder, 'guides', keys, lambda record: 'scores' in record, make)
        if get_dist_info()[0] == 0:
            scores = {record['id']: record['scores'] for record in read_records(records)}
            rankings = {c: sorted(ids, key=lambda key, c=c: (scores[key][str(c)], key))
                        for c, ids in enumerate(index.lists) if ids}
            index.restrict(rankings, self.guide_ratio, self.min_keep).save(str(path))
        barrier()

    # ---- scores -------------------------------------------------------------------------------------------------

    def score(self, sample: dict) -> float:
        """R(x) >= 0 of one unlabeled image; +inf if no pixel of its pseudo-label has a class with an anchor."""
        image = Path(sample['data_samples'].img_path)
        paths = [Path(folder) / image.relative_to(self.root).with_suffix('.png') for folder in self.masks]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f'no pseudo-label of {image}: looked for {", ".join(map(str, paths))}')
        mask = read_mask(path)
        check_mask(path, mask.shape, np.unique(mask).tolist(), image, sample['data_samples'].ori_shape[:2],
                   self.model.num_classes)
        return float(image_score(*self._scores(sample, mask, str(path)), self.reduce))

    def _scores(self, sample: dict, mask: np.ndarray, path: str) -> Tuple[Tensor, Tensor]:
        """:func:`anchor_scores` of a whole image and a mask [H, W]."""
        wrong = np.setdiff1d(mask, [*range(self.model.num_classes), IGNORE])
        if len(wrong):
            raise ValueError(f'mask {path} holds labels {wrong.tolist()[:5]}; expected 0..{self.model.num_classes - 1} '
                             f'or {IGNORE} (ignore)')
        features, _, seen = self._features(sample, training=False)
        # The network may see the image at another size than the mask has, and padded: the mask gets as large a margin.
        margins = [round(side * (padded / image - 1))
                   for side, image, padded in zip(mask.shape, sample['inputs'].shape[1:], seen, strict=True)]
        label = np.pad(mask.astype(np.int64), [(0, margin) for margin in margins], constant_values=IGNORE)
        label = torch.from_numpy(label).to(features.device)
        return anchor_scores(features[0], self.anchors, self.valid, label, self.model.guidance.similarity_range)

    @torch.no_grad()
    def _features(self, sample: dict, training: bool) -> Tuple[Tensor, list, torch.Size]:
        """Features [1, D, h, w] of a packed sample, its data samples, and (H, W) of what the network saw: padded to the
        crop in training, else as ``data_preprocessor.test_cfg`` pads."""
        batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        data = self.model.data_preprocessor(batch, training)
        images = data['inputs']
        self.model.decode_head(self.model.extract_feat(images))
        return self.model.tap.pop(), data['data_samples'], images.shape[2:]
