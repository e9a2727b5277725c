"""Times the prototype InfoNCE of CSS against the published procedure, and measures its memory.

    python tools/analysis_tools/contrast_speed.py    # 8 + 8 images, features 256 x 128 x 128, 21 classes

- ours: :func:`prototype_info_nce`, forward and backward;
- reference: the published procedure as section 9 of the specification describes it, written anew: a loop over classes,
  and for each anchor a loop over the other classes that draws as many pixel numbers as negatives fell on the class.

Both run in turns in one process, on the GPU if there is one. Every class is present, the most expensive case of the
reference; ours costs the same for every batch. Memory is the peak of resident memory over that of a process that holds
the inputs and their gradient, each in a process of its own on the CPU. Linux only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_semi.models.losses.prototype_contrast import prototype_info_nce

TEMPERATURE = 0.5


def inputs(args: argparse.Namespace, device: torch.device) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features [M, D] with gradient, labels [M] of all classes, hard [M] for 4 of 5 pixels, prototypes [C, D]."""
    generator = torch.Generator().manual_seed(0)
    pixels = args.images * args.size**2
    features = torch.randn(pixels, args.channels, generator=generator).to(device).requires_grad_()
    label = torch.randint(args.classes, (pixels, ), generator=generator).to(device)
    hard = (torch.rand(pixels, generator=generator) < 0.8).to(device)
    return features, label, hard, torch.randn(args.classes, args.channels, generator=generator).to(device)


def reference(features: Tensor, label: Tensor, hard: Tensor, prototypes: Tensor, num_anchors: int,
              num_negatives: int) -> Tensor:
    """The published procedure; arguments as those of :func:`prototype_info_nce`.

    Cheaper than published in one respect: the offsets of the classes are summed once per class, not once per draw.
    """
    anchors_of: List[Tensor] = []
    pixels_of: List[Tensor] = []
    present: List[int] = []
    for c in range(len(prototypes)):
        member = label == c
        if not member.any():
            continue
        present.append(c)
        pixels_of.append(features[member].detach())
        anchors_of.append(features[member & hard])
    loss = 0 * features.sum()
    if len(present) <= 1:
        return loss
    for i, c in enumerate(present):
        if len(anchors_of[i]) == 0:
            continue
        anchors = anchors_of[i][torch.randint(len(anchors_of[i]), (num_anchors, ), device=features.device)]
        others = present[:i] + present[i + 1:]
        cosine = F.cosine_similarity(prototypes[c][None], prototypes[others])
        drawn = torch.distributions.Categorical(logits=cosine / TEMPERATURE).sample((num_anchors, num_negatives))
        counts = torch.stack([(drawn == j).sum(1) for j in range(len(others))], 1)  # [Q, K - 1]
        pool = pixels_of[:i] + pixels_of[i + 1:]
        offsets = np.cumsum([0] + [len(p) for p in pool])
        index: List[int] = []
        for q in range(num_anchors):
            for j in range(len(others)):
                index += np.random.randint(offsets[j], offsets[j + 1], int(counts[q, j])).tolist()
        negatives = torch.cat(pool)[torch.tensor(index, device=features.device)]
        negatives = negatives.reshape(num_anchors, num_negatives, -1)
        candidates = torch.cat([prototypes[c].expand(num_anchors, 1, -1), negatives], 1)
        scores = F.cosine_similarity(anchors[:, None], candidates, dim=2) / TEMPERATURE
        loss = loss + F.cross_entropy(scores, scores.new_zeros(num_anchors, dtype=torch.long)) / len(present)
    return loss


def seconds(loss: Callable[[], Tensor], features: Tensor) -> Tuple[float, float]:
    """Wall time of a loss, forward and backward, and its value."""
    features.grad = None
    if features.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    value = loss()
    value.backward()
    if features.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, value.item()


def peak_megabytes() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith('VmHWM'))
    return int(line.split()[1]) * 1024 / 1e6


def memory(args: argparse.Namespace) -> float:
    """Peak resident memory of this process with the inputs and their gradient, and the loss unless ``baseline``."""
    features, *rest = inputs(args, torch.device('cpu'))
    if args.way == 'baseline':
        features.grad = torch.ones_like(features)  # zeros might not be backed by memory
    else:
        prototype_info_nce(features, *rest, args.anchors, args.negatives, TEMPERATURE, args.way == 'shared',
                           torch.Generator()).backward()
    return peak_megabytes()


def memory_of(way: str) -> float:
    """:func:`memory` in a process of its own."""
    # glibc keeps freed blocks of up to 32 MB; given back at once, the peak is that of live tensors.
    done = subprocess.run([sys.executable, '-W', 'ignore', *sys.argv, '--way', way], check=True, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, 'MALLOC_MMAP_THRESHOLD_': '1000000'})
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=16, help='labeled and unlabeled together')
    parser.add_argument('--size', type=int, default=128, help='side of the feature map')
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument('--anchors', type=int, default=256, help='per class')
    parser.add_argument('--negatives', type=int, default=512, help='per anchor')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--way', choices=['baseline', 'ours', 'shared'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(memory(args))
        return
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    data = inputs(args, device)
    generator = torch.Generator().manual_seed(0)
    numbers = (args.anchors, args.negatives)
    ways = dict(
        ours=lambda: prototype_info_nce(*data, *numbers, TEMPERATURE, generator=generator),
        shared=lambda: prototype_info_nce(*data, *numbers, TEMPERATURE, True, generator),
        reference=lambda: reference(*data, *numbers))
    runs = [{name: seconds(loss, data[0]) for name, loss in ways.items()} for _ in range(args.repeats + 1)][1:]
    took = {name: statistics.median(run[name][0] for run in runs) for name in ways}
    value = {name: statistics.mean(run[name][1] for run in runs) for name in ways}
    peak = {way: memory_of(way) for way in ('baseline', 'ours', 'shared')}
    result = dict(
        ratio=round(took['reference'] / took['ours'], 3),
        ratio_shared=round(took['reference'] / took['shared'], 3),
        **{f'{name}_ms': round(1000 * t, 2) for name, t in took.items()},
        **{f'{name}_loss': v for name, v in value.items()},
        baseline_mb=round(peak['baseline'], 1),
        ours_extra_mb=round(peak['ours'] - peak['baseline'], 1),
        shared_extra_mb=round(peak['shared'] - peak['baseline'], 1),
        device=device.type,
        threads=torch.get_num_threads(),
        **{name: getattr(args, name) for name in (
            'images', 'size', 'channels', 'classes', 'anchors', 'negatives', 'repeats')})
    print(f'{args.images} images, features {args.channels} x {args.size} x {args.size}, {args.classes} classes, '
          f'{args.anchors} anchors, {args.negatives} negatives; {device.type}, {result["threads"]} threads')
    print(f'ours      {result["ours_ms"]} ms, loss {value["ours"]:.4f}, + {result["ours_extra_mb"]} MB\n'
          f'shared    {result["shared_ms"]} ms, loss {value["shared"]:.4f}, + {result["shared_extra_mb"]} MB\n'
          f'reference {result["reference_ms"]} ms, loss {value["reference"]:.4f}\n'
          f'ratio {result["ratio"]} (one set of negatives per class: {result["ratio_shared"]})')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()
