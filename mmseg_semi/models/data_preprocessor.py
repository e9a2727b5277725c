"""From collated samples to a :class:`SemiBatch` on the device."""
from typing import List, Optional, Sequence, Union

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmseg_semi.registry import MODELS
from mmseg_semi.structures import SemiBatch


@MODELS.register_module()
class SemiSegDataPreProcessor(BaseDataPreprocessor):
    """Moves, stacks and pads the labeled and the unlabeled images of a batch; normalization comes last.

    Images travel as uint8 and arrive as RGB in [0, 1], since the batch augments work on that range; the segmentor calls
    :meth:`normalize` right before a network sees them. Padding is right and bottom and is recorded in
    ``SemiBatch.valid``. A batch without the keys ``labeled`` and ``unlabeled`` (validation, test, a plain training
    batch) goes through mmseg's own ``SegDataPreProcessor`` unchanged, but with any number of channels.

    Args:
        mean (Sequence[float]): Per channel, RGB order, in 0..255.
        std (Sequence[float]): Per channel, RGB order, in 0..255, positive.
        size (tuple[int, int], optional): (H, W) that training images are padded to, normally the crop. Without it
            labeled and unlabeled images are padded apart, each to the largest of theirs.
        size_divisor (int, optional): Pad training images to a multiple of this instead. Used only without ``size``.
        pad_val (float): Value of padding after normalization. Defaults to 0, the mean color.
        bgr_to_rgb (bool): Whether the loader delivers BGR, as mmcv's does. Defaults to True.
        seg_pad_val (int): Label of padding in labeled images: the ``ignore_index`` of the heads, or a class, which
            padding then trains. 255 (ignored) is our choice; the original PCR code pads with 0, background. Defaults
            to 255.
        test_cfg (dict, optional): ``size`` or ``size_divisor`` for test-time padding, as in mmseg.

    Raises:
        ValueError: If ``mean`` and ``std`` differ in length or a ``std`` is not positive.
    """

    def __init__(self,
                 mean: Sequence[float],
                 std: Sequence[float],
                 size: Optional[Sequence[int]] = None,
                 size_divisor: Optional[int] = None,
                 pad_val: float = 0,
                 bgr_to_rgb: bool = True,
                 seg_pad_val: int = 255,
                 test_cfg: Optional[dict] = None) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f'data_preprocessor: mean and std must have one entry per channel, std positive; '
                             f'found mean={list(mean)}, std={list(std)}')
        self.size = tuple(size) if size else None
        shared = dict(
            type='SegDataPreProcessor',
            size=self.size,
            size_divisor=None if size else (size_divisor or 1),
            bgr_to_rgb=bgr_to_rgb,
            pad_val=pad_val,
            seg_pad_val=seg_pad_val)
        self.pad_val, self.seg_pad_val = pad_val, seg_pad_val
        # One value stands for all channels; OneDL's takes 1 or 3 of them, its buffers any number.
        self.plain = MODELS.build(dict(shared, mean=[0.], std=[1.], test_cfg=test_cfg))
        self.plain.mean, self.plain.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.unit = MODELS.build(dict(shared, mean=[0.], std=[255.]))
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1) / 255, persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1) / 255, persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalizes RGB images in [0, 1], [N, 3, H, W], with ``mean`` and ``std``."""
        return (images - self.mean) / self.std

    def forward(self, data: dict, training: bool = False) -> Union[dict, list]:
        """Processes one batch.

        Args:
            data (dict): ``{'labeled': group, 'unlabeled': group}`` from :func:`semi_collate`, or a plain mmseg batch;
                a group is ``{'inputs': list of uint8 [3, H, W], 'data_samples': list}``.
            training (bool): As in mmseg.

        Returns:
            dict: ``inputs`` (:class:`SemiBatch`, or [N, 3, H, W] of a plain batch) and ``data_samples`` (labeled).

        Raises:
            ValueError: If a group is empty, or one of its images is larger than ``size``.
        """
        if not (isinstance(data, dict) and 'unlabeled' in data):
            return self.plain(data, training)
        for name, group in data.items():
            if not group['inputs']:
                raise ValueError(f'the batch holds no {name} image: the labeled pipeline must have LoadAnnotations, '
                                 'the unlabeled one must not (use UnlabeledDataset)')
        labeled, label_samples = self._group(data['labeled'])
        weak, samples = self._group(data['unlabeled'])
        self._fill(labeled, self._valid(label_samples, labeled))
        valid = self._valid(samples, weak)
        self._fill(weak, valid)
        return dict(inputs=SemiBatch(labeled, weak, valid), data_samples=label_samples)

    def _group(self, group: dict):
        for image in group['inputs'] if self.size else ():
            if any(side > most for side, most in zip(image.shape[1:], self.size, strict=True)):
                raise ValueError(f'a training image has {tuple(image.shape[1:])} pixels (H, W), but '
                                 f'data_preprocessor.size is {self.size}: put RandomCrop(crop_size={self.size}) into '
                                 'the pipelines of the training set, or set data_preprocessor.size to their crop')
        out = self.unit(group, True)
        return out['inputs'], out['data_samples']

    def _fill(self, images: Tensor, valid: Tensor) -> None:
        # The stacked tensor is ours and nobody has seen it yet, so it may be filled in place.
        images.copy_(torch.where(valid[:, None], images, self.mean + self.pad_val * self.std))

    @staticmethod
    def _valid(samples: List, images: Tensor) -> Tensor:
        """[N, H, W] bool, true where ``stack_batch`` did not pad (right and bottom)."""
        height, width = images.shape[-2:]
        left_top = torch.tensor([[height - s.metainfo['padding_size'][3], width - s.metainfo['padding_size'][1]]
                                 for s in samples]).to(images.device, non_blocking=True)
        rows = torch.arange(height, device=images.device) < left_top[:, :1]  # [N, H]
        columns = torch.arange(width, device=images.device) < left_top[:, 1:]  # [N, W]
        return rows[:, :, None] & columns[:, None, :]
