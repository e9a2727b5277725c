"""Measures the memory of PCR's prototype branch against the published way of reading its feature.

    python tools/analysis_tools/prototype_memory.py          # 8 images of 513 x 513, feature 512 x 129 x 129

Each way runs forward and backward in a process of its own, whose peak resident memory is read at the end:

- baseline: the feature, the 3x3 convolution behind it, and its gradient;
- ours: the same and the prototype losses, read by :class:`PointReader` inside a :class:`FeatureTap`;
- reference: the same, but the feature is resized to the crop and indexed (needs about 6 GB).

Linux only. The loss and the gradient of the feature must agree.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmseg_semi  # noqa: F401 (registers the parts)
from mmseg_semi.models.feature_tap import FeatureTap
from mmseg_semi.models.heads import PrototypeHead
from mmseg_semi.models.points import PointReader, stratified_pixels

WAYS = ('baseline', 'ours', 'reference')


def peak_megabytes() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith('VmHWM'))
    return int(line.split()[1]) * 1024 / 1e6


def run(way: str, images: int, crop: int, channels: int, channels_last: bool = False) -> dict:
    """One forward and backward.

    Args:
        way (str): One of ``WAYS``.
        images (int): N.
        crop (int): Side of the crop in pixels, of the form 4 k + 1.
        channels (int): D, even.
        channels_last (bool): Memory layout of feature and convolution. Defaults to False.

    Returns:
        dict: ``megabytes``, ``loss`` (of the branch; 0 for the baseline) and ``grad``, [N, D, 16] samples of the
        feature's gradient at picked places.
    """
    generator = torch.Generator().manual_seed(0)
    size = (crop - 1) // 4 + 1
    # As in DeepLabV3PlusHead: the feature is a concatenation of the low-level and the ASPP branch.
    layout = torch.channels_last if channels_last else torch.contiguous_format
    parts = [torch.randn(images, channels // 2, size, size, generator=generator).contiguous(memory_format=layout)
             .requires_grad_() for _ in range(2)]
    torch.manual_seed(0)
    head = nn.ModuleDict(dict(classifier=nn.Conv2d(channels, channels // 2, 3, padding=1))).to(memory_format=layout)
    prototypes = PrototypeHead(num_classes=21, channels=channels, num_prototypes=4)
    prototypes.set_bank(torch.randn(21, 4, channels, generator=generator), torch.ones(21, dtype=torch.bool))
    rows, columns = stratified_pixels(crop, crop, 32, generator)
    labels = torch.randint(21, (images * len(rows), ), generator=generator)
    tap = FeatureTap(head, 'classifier')

    feature = torch.cat(parts, dim=1)
    loss = torch.zeros(())
    if way == 'ours':
        with tap.reading(PointReader(rows, columns, (crop, crop), align_corners=True)):
            out = head['classifier'](feature)
        points = tap.pop()  # [N, P, D]
    else:
        out = head['classifier'](feature)
        tap.pop()
        if way == 'reference':
            points = F.interpolate(feature, size=(crop, crop), mode='bilinear', align_corners=True)
            points = points[:, :, rows, columns].transpose(1, 2)
    if way != 'baseline':
        scores, _ = prototypes(points.flatten(0, 1))
        loss = prototypes.loss(scores, labels, torch.ones_like(labels, dtype=torch.bool))
        del points, scores
    del feature
    (out.mean() + loss).backward()
    peak = peak_megabytes()
    return dict(megabytes=peak, loss=loss.item(), grad=_samples(parts))


def _samples(parts) -> Tensor:
    # A row of pixels through the middle of each map: enough to tell a wrong gradient, small enough to hand over.
    return torch.cat([part.grad[:, :, part.shape[2] // 2] for part in parts], dim=1)


def main() -> None:
    """Runs the ways in their own processes and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--crop', type=int, default=513)
    parser.add_argument('--channels', type=int, default=512)
    parser.add_argument('--channels-last', action='store_true', help='the memory layout of ChannelsLastHook')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument('--to', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        torch.save(run(args.way, args.images, args.crop, args.channels, args.channels_last), args.to)
        return
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            command = [sys.executable, __file__, '--images', str(args.images), '--crop', str(args.crop), '--channels',
                       str(args.channels), '--way', way, '--to', f'{folder}/{way}.pt']
            command += ['--channels-last'] if args.channels_last else []
            # glibc keeps freed blocks of up to 32 MB; given back at once, the peak is that of live tensors.
            subprocess.run(command, check=True, env={**os.environ, 'MALLOC_MMAP_THRESHOLD_': '1000000'})
        results = {way: torch.load(f'{folder}/{way}.pt', weights_only=True) for way in WAYS}
    base, ours, reference = (results[way] for way in WAYS)
    gradient = float((ours['grad'] - reference['grad']).abs().max() / reference['grad'].abs().max())
    result = dict(
        baseline_mb=round(base['megabytes'], 1),
        ours_extra_mb=round(ours['megabytes'] - base['megabytes'], 1),
        reference_extra_mb=round(reference['megabytes'] - base['megabytes'], 1),
        loss=ours['loss'],
        loss_difference=abs(ours['loss'] - reference['loss']),
        gradient_difference=gradient,
        images=args.images,
        crop=args.crop,
        channels=args.channels)
    print(f'{args.images} images of {args.crop} x {args.crop}, {args.channels} channels; baseline '
          f'{result["baseline_mb"]:.0f} MB')
    print(f'ours      + {result["ours_extra_mb"]:.0f} MB\nreference + {result["reference_extra_mb"]:.0f} MB')
    print(f'loss {ours["loss"]:.6f}, difference {result["loss_difference"]:.1e}; largest gradient difference '
          f'{gradient:.1e} of the largest gradient')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()
