"""Times the teacher update against a loop over tensors.

    python tools/analysis_tools/ema_speed.py            # DeepLabV3+ on ResNet-101

The loop is what most implementations do: walk ``named_parameters()`` and buffers of both networks and, per tensor,
multiply and add in place. Both run in turns in one process.
"""
import argparse
import json
import statistics
import time
from typing import Callable

import torch
from mmengine.registry import init_default_scope
from torch import nn

import mmseg_semi  # noqa: F401 (registers the parts)
from mmseg_semi.models.ema import EMA
from mmseg_semi.registry import MODELS


def network(depth: int) -> nn.Module:
    """DeepLabV3+ on a ResNet with random weights; the same for each call."""
    torch.manual_seed(0)
    wide = 512 * (4 if depth >= 50 else 1)
    return MODELS.build(dict(
        type='EncoderDecoder',
        backbone=dict(type='ResNetV1c', depth=depth, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)),
        decode_head=dict(type='DeepLabV3PlusHead', in_channels=wide, in_index=3, channels=256, dilations=(1, 6, 12, 18),
                         c1_in_channels=wide // 8, num_classes=21, norm_cfg=dict(type='BN'), align_corners=True)))


@torch.no_grad()
def loop(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """The teacher update tensor by tensor."""
    parameters = dict(student.named_parameters())
    for name, tensor in teacher.named_parameters():
        tensor.mul_(decay).add_(parameters[name], alpha=1 - decay)
    buffers = dict(student.named_buffers())
    for name, tensor in teacher.named_buffers():
        if tensor.is_floating_point():
            tensor.mul_(decay).add_(buffers[name], alpha=1 - decay)
        else:
            tensor.copy_(buffers[name])


def seconds(function: Callable[[], None]) -> float:
    """Wall time of a call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--depth', type=int, choices=[18, 50, 101], default=101, help='of the ResNet')
    parser.add_argument('--repeats', type=int, default=30)
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    args = parser.parse_args()
    init_default_scope('mmseg')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    teacher, student = network(args.depth).to(device), network(args.depth).to(device)
    ema = EMA(teacher, student)
    times = [(seconds(lambda: ema.update(0.99)), seconds(lambda: loop(teacher, student, 0.99)))
             for _ in range(args.repeats + 1)][1:]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    size = sum(t.numel() * t.element_size() for t in teacher.state_dict().values())
    result = dict(
        ratio=round(theirs / ours, 3),
        ratio_of_fastest=round(min(t for _, t in times) / min(t for t, _ in times), 3),
        ours_ms=round(1000 * ours, 3),
        loop_ms=round(1000 * theirs, 3),
        gigabytes_per_second=round(3 * size / ours / 1e9, 2),
        tensors=len(teacher.state_dict()),
        megabytes=round(size / 1e6, 1),
        device=device.type,
        threads=torch.get_num_threads(),
        repeats=args.repeats)
    print(f'{result["tensors"]} tensors, {result["megabytes"]} MB, {device.type}: EMA.update {result["ours_ms"]} ms '
          f'({result["gigabytes_per_second"]} GB/s read and written), loop {result["loop_ms"]} ms, '
          f'ratio {result["ratio"]} (fastest runs: {result["ratio_of_fastest"]})')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()
