"""From collated samples with guides to a :class:`GuidedBatch` on the device."""
from typing import Dict, List, Optional, Sequence, Union

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import GuidedBatch

from .data_preprocessor import SemiSegDataPreProcessor

IGNORE = 255


@MODELS.register_module()
class GuidedSegDataPreProcessor(SemiSegDataPreProcessor):
    """A :class:`SemiSegDataPreProcessor` for the samples of ``GuidedPairDataset``.

    Labeled samples may carry guides, all of them or none, and unlabeled ones a pseudo-label; a batch may lack either
    kind. Guides are padded as the images are.

    Args:
        size (tuple[int, int]): (H, W) that training images are padded to: the crop.
        **kwargs: Of :class:`SemiSegDataPreProcessor`; ``seg_pad_val`` is 255.

    Raises:
        ValueError: If there is no ``size``, or ``seg_pad_val`` is another one.
    """

    def __init__(self, size: Sequence[int], **kwargs) -> None:
        if not size:
            raise ValueError('GuidedSegDataPreProcessor.size must be the crop (H, W), since images and guides pass the '
                             f'network together; found {size!r}')
        if kwargs.get('seg_pad_val', IGNORE) != IGNORE:
            raise ValueError(f'GuidedSegDataPreProcessor.seg_pad_val must be {IGNORE}, found {kwargs["seg_pad_val"]}')
        super().__init__(size=size, **kwargs)

    def forward(self, data: dict, training: bool = False) -> Union[dict, list]:
        """Processes one batch.

        Args:
            data (dict): From :func:`semi_collate`, or a plain mmseg batch, which passes as in mmseg.
            training (bool): As in mmseg.

        Returns:
            dict: ``inputs`` (:class:`GuidedBatch`) and ``data_samples``, one for each image of ``inputs.labeled``.

        Raises:
            ValueError: If the batch has no labeled image, only some images of a kind have guides, or an image is larger
                than ``size``.
        """
        if not (isinstance(data, dict) and 'unlabeled' in data):
            return self.plain(data, training)
        if not data['labeled']['inputs']:
            raise ValueError('the batch holds no labeled image: the labeled pipeline must have LoadAnnotations')
        images, samples = self._images(**data['labeled'])
        fields = dict(labeled=images, weak=None, valid=None)
        guides = self._guides('labeled', data['labeled']['data_samples'])
        if guides:
            fields.update(labeled=torch.cat([images, guides['images']]), pair_class=guides['classes'])
            samples = samples + guides['samples']
        if data['unlabeled']['inputs']:
            fields.update(self._unlabeled(data['unlabeled']))
        return dict(inputs=GuidedBatch(**fields), data_samples=samples)

    def _unlabeled(self, group: dict) -> Dict[str, Tensor]:
        images, samples = self._images(**group)
        fields = dict(weak=images, valid=self._valid(samples, images))
        if 'gt_sem_seg' in samples[0]:
            fields['pseudo_label'] = self._labels(samples)
        guides = self._guides('unlabeled', group['data_samples'])
        if guides:
            fields.update(guide=guides['images'], guide_label=self._labels(guides['samples']),
                          guide_class=guides['classes'])
        return fields

    def _images(self, inputs: List[Tensor], data_samples: List) -> tuple:
        """Stacked images, and samples that hold nothing but the mask, padded alike."""
        samples = [self._mask_only(sample) for sample in data_samples]
        images, samples = self._group(dict(inputs=inputs, data_samples=samples))
        self._fill(images, self._valid(samples, images))
        return images, samples

    @staticmethod
    def _mask_only(sample: SegDataSample) -> SegDataSample:
        """A copy that mmseg pads and moves without the guide; mmseg pads ``gt_sem_seg`` only."""
        copied = SegDataSample(metainfo=sample.metainfo)
        for key in ('gt_sem_seg', 'pseudo_sem_seg'):
            if key in sample:
                copied.gt_sem_seg = PixelData(data=sample.get(key).data)
        return copied

    def _guides(self, name: str, data_samples: List) -> Optional[dict]:
        found = [sample.guide for sample in data_samples if 'guide' in sample]
        if not found:
            return None
        if len(found) < len(data_samples):
            raise ValueError(f'{len(found)} of {len(data_samples)} {name} images have guides; expected all or none')
        images, samples = self._images([guide.inputs for guide in found], found)
        classes = torch.tensor([guide.metainfo.get('guide_class', -1) for guide in found])
        return dict(images=images, samples=samples, classes=classes.to(images.device, non_blocking=True))

    @staticmethod
    def _labels(samples: List) -> Tensor:
        return torch.cat([sample.gt_sem_seg.data for sample in samples])
