"""Times the masked average pooling of CISC-R against pooling resized features, and measures the memory of both.

    python tools/analysis_tools/pooling_cost.py    # a batch of 32 crops of 321 x 321; the reference takes 7 GB

- ours: :func:`masked_average_pool`, forward and backward, which resizes the mask with the adjoint of the resize;
- reference: the published procedure, which resizes the features to the crop, multiplies them by the mask and sums.

Both run in turns in one process, on the GPU if there is one. Memory is how far the peak rises over that of the
features, their gradient and the mask, in one process for each: allocated memory of the GPU, resident memory on the CPU.
Linux only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_semi.models.losses import masked_average_pool

EPS = 5e-4
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def inputs(args: argparse.Namespace) -> Tuple[Tensor, Tensor]:
    """Features [N, D, h, w] with gradient, and a mask [N, H, W] of 3 pixels in 10."""
    torch.manual_seed(0)
    features = torch.randn(args.shape, device=DEVICE).requires_grad_()
    return features, torch.rand(args.shape[0], *args.size, device=DEVICE) < 0.3


def reference(features: Tensor, mask: Tensor) -> Tensor:
    """What :func:`masked_average_pool` computes, by way of features of the size of the mask."""
    resized = F.interpolate(features, mask.shape[1:], mode='bilinear', align_corners=False)
    return (resized * mask[:, None]).sum(dim=(2, 3)) / (mask.sum(dim=(1, 2))[:, None] + EPS)


WAYS = dict(ours=lambda *data: masked_average_pool(*data, eps=EPS), reference=reference)


def seconds(way: str, features: Tensor, mask: Tensor) -> Tuple[float, Tensor, Tensor]:
    """Wall time of a way, forward and backward, its result and its gradient."""
    features.grad = None
    if features.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    pooled = WAYS[way](features, mask)
    pooled.square().sum().backward()
    if features.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, pooled.detach(), features.grad


def peak_megabytes() -> float:
    """Peak memory of this process in MB (10^6 bytes)."""
    if DEVICE.type == 'cuda':
        return torch.cuda.max_memory_allocated() / 1e6
    line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith('VmHWM'))
    return int(line.split()[1]) * 1024 / 1e6


def memory(args: argparse.Namespace) -> float:
    """How far a way raises the peak memory of this process over the inputs and their gradient, in MB."""
    seconds(args.way, torch.randn(2, 3, 4, 4, device=DEVICE).requires_grad_(),
            torch.ones(2, 8, 8, dtype=torch.bool, device=DEVICE))  # loads the libraries
    features, mask = inputs(args)
    features.grad = torch.ones_like(features)  # zeros might not be backed by memory
    before = peak_megabytes()
    seconds(args.way, features, mask)
    return peak_megabytes() - before


def memory_of(way: str) -> float:
    """:func:`memory` in a process of its own."""
    # glibc keeps freed blocks of up to 32 MB; given back at once, the peak is that of live tensors.
    done = subprocess.run([sys.executable, '-W', 'ignore', *sys.argv, '--way', way], check=True, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, 'MALLOC_MMAP_THRESHOLD_': '1000000'})
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', type=int, nargs=4, default=[32, 256, 81, 81], metavar=('N', 'D', 'h', 'w'),
                        help='of the features')
    parser.add_argument('--size', type=int, nargs=2, default=[321, 321], metavar=('H', 'W'), help='of the mask')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--way', choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(memory(args))
        return
    extra = {way: memory_of(way) for way in WAYS}
    data = inputs(args)
    took = {way: [] for way in WAYS}
    for _ in range(args.repeats + 1):
        results = []
        for way in WAYS:
            duration, *result = seconds(way, *data)
            took[way].append(duration)
            results.append(result)
    median = {way: statistics.median(times[1:]) for way, times in took.items()}  # the first warms up
    error = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True)]
    result = dict(
        ratio=round(median['reference'] / median['ours'], 3),
        **{f'{way}_ms': round(1000 * t, 2) for way, t in median.items()},
        **{f'{way}_extra_mb': round(mb, 1) for way, mb in extra.items()},
        features_mb=round(4 * data[0].numel() / 1e6, 1),
        resized_mb=round(4 * data[1].numel() * args.shape[1] / 1e6, 1),
        error=error[0],
        gradient_error=error[1],
        device=DEVICE.type,
        threads=torch.get_num_threads(),
        **{name: getattr(args, name) for name in ('shape', 'size', 'repeats')})
    print(f'features {" x ".join(map(str, args.shape))} ({result["features_mb"]} MB; resized to '
          f'{" x ".join(map(str, args.size))}, {result["resized_mb"]} MB); {DEVICE.type}, {result["threads"]} threads')
    for way in WAYS:
        print(f'{way:9} {result[f"{way}_ms"]} ms, + {result[f"{way}_extra_mb"]} MB')
    print(f'ratio {result["ratio"]}, relative difference {error[0]:.1e}, of the gradients {error[1]:.1e}')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()
