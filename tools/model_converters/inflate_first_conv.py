"""Makes the weights of an RGB network fit images of N bands.

    python tools/model_converters/inflate_first_conv.py checkpoints/efficientnet_lite0.pth checkpoints/lite0_n4.pth \\
        --in-channels 4

Every band gets the mean of the weights of the three colors times 3 / N, so that an image whose bands are all
equal gives the response it gave in gray. Use the result as `init_cfg.checkpoint` of a backbone with `in_channels=N`.
"""
import argparse
import os
import sys
from pathlib import Path
from typing import Dict, Optional, Sequence

import torch
from torch import Tensor


def first_conv(weights: Dict[str, Tensor], key: Optional[str]) -> str:
    """Name of the convolution that sees the image.

    Args:
        weights (dict[str, Tensor]): A state dict.
        key (str, optional): The name, where it cannot be guessed.

    Raises:
        ValueError: If there is no such tensor, or not exactly one with three input channels.
    """
    found = [name for name, tensor in weights.items() if tensor.ndim == 4 and tensor.shape[1] == 3]
    if key is not None:
        if key not in found:
            raise ValueError(f'--key {key} is no convolution of three channels; there are {found}')
        return key
    if len(found) != 1:
        raise ValueError(f'{len(found)} convolutions take three channels: {found}; name one with --key')
    return found[0]


def inflate(weight: Tensor, channels: int) -> Tensor:
    """[O, 3, h, w] -> [O, channels, h, w], the sum over the input channels kept."""
    return (weight.float().sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1).to(weight.dtype)


def convert(source: Path, out: Path, channels: int, key: Optional[str]) -> str:
    """Writes ``out``, which appears only when whole; returns the name of the tensor.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If one of the paths is a folder, or the source no checkpoint of weights or without such a
            convolution.
    """
    for path in (source, out):
        if path.is_dir():
            raise ValueError(f'{path} is a folder; expected a file')
    if not source.is_file():
        raise FileNotFoundError(f'checkpoint not found: {source}')
    if channels < 1:
        raise ValueError(f'--in-channels must be positive, found {channels}')
    try:
        checkpoint = torch.load(source, map_location='cpu', weights_only=True)
    except Exception as error:  # pickle, zip and torch have many of their own
        raise ValueError(f'{source} cannot be read as weights: {error}') from error
    weights = checkpoint.get('state_dict', checkpoint)
    name = first_conv({k: v for k, v in weights.items() if isinstance(v, Tensor)}, key)
    weights[name] = inflate(weights[name], channels)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'{out.name}.{os.getpid()}.part')
    torch.save(checkpoint, part)
    part.replace(out)
    return name


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Converts.

    Args:
        argv (Sequence[str], optional): Command line without the program.

    Returns:
        int: Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--in-channels', type=int, required=True, help='number of bands N')
    parser.add_argument('--key', help='name of the first convolution, where several take three channels')
    args = parser.parse_args(argv)
    try:
        name = convert(args.checkpoint, args.out, args.in_channels, args.key)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{args.out}: {name} takes {args.in_channels} channels')
    return 0


if __name__ == '__main__':
    sys.exit(main())
