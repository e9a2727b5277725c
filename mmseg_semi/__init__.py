"""Semi-supervised semantic segmentation on top of MMSegmentation.

Importing the package checks the environment, then registers every part in mmseg's registries.
"""
from . import environment

# Before anything imports mmengine, mmcv or mmseg: with a broken set-up those fail in ways that name no cure.
environment.check()
environment.allow_own_checkpoints()

from . import datasets, engine, models  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'environment', 'models']
