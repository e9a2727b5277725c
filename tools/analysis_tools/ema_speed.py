"""Times the teacher update against a loop over tensors.

    python tools/analysis_tools/ema_speed.py            # DeepLabV3+ on ResNet-101

Two loops over parameters and buffers run in turns with ours in one process: the form of the released codes, which makes
a new tensor for every product and sum, and a careful one that multiplies and adds in place.
"""
import argparse
import json
import statistics
import time
from typing import Callable

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

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


def out_of_place(teacher: Tensor, student: Tensor, decay: float) -> None:
    """One tensor as released codes (U2PL, CSS) move it."""
    teacher.data = decay * teacher.data + (1 - decay) * student.data


def in_place(teacher: Tensor, student: Tensor, decay: float) -> None:
    """One tensor without temporaries."""
    teacher.mul_(decay).add_(student, alpha=1 - decay)


@torch.no_grad()
def loop(move: Callable[[Tensor, Tensor, float], None], teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """The teacher update tensor by tensor."""
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        move(mine, theirs, decay)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        if mine.is_floating_point():
            move(mine, theirs, decay)
        else:
            mine.copy_(theirs)


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
    # The out-of-place loop replaces the storage of its teacher, so each has its own.
    rivals = {move.__name__: (move, network(args.depth).to(device)) for move in (out_of_place, in_place)}
    columns = {name: [] for name in ('ours', *rivals)}
    for _ in range(args.repeats + 1):
        columns['ours'].append(seconds(lambda: ema.update(0.99)))
        for name, (move, twin) in rivals.items():
            columns[name].append(seconds(lambda move=move, twin=twin: loop(move, twin, student, 0.99)))
    median = {name: statistics.median(column[1:]) for name, column in columns.items()}
    fastest = {name: min(column[1:]) for name, column in columns.items()}
    ours = median['ours']
    size = sum(t.numel() * t.element_size() for t in teacher.state_dict().values())
    result = dict(
        **{f'ratio_{name}': round(median[name] / ours, 3) for name in rivals},
        **{f'ratio_{name}_of_fastest': round(fastest[name] / fastest['ours'], 3) for name in rivals},
        **{f'{name}_ms': round(1000 * value, 3) for name, value in median.items()},
        gigabytes_per_second=round(3 * size / ours / 1e9, 2),
        tensors=len(teacher.state_dict()),
        megabytes=round(size / 1e6, 1),
        device=device.type,
        threads=torch.get_num_threads(),
        repeats=args.repeats)
    print(f'{result["tensors"]} tensors, {result["megabytes"]} MB, {device.type}: EMA.update {result["ours_ms"]} ms '
          f'({result["gigabytes_per_second"]} GB/s read and written)')
    for name in rivals:
        print(f'loop, {name.replace("_", " ")}: {result[f"{name}_ms"]} ms, ratio {result[f"ratio_{name}"]} '
              f'(fastest runs: {result[f"ratio_{name}_of_fastest"]})')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()
