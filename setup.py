"""Builds the distribution ``mmseg-semi``; the requirements come from the files in ``requirements/``."""
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Reads the requirements of ``requirements/<name>.txt``, comments left out."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith('#')]


def version() -> str:
    """Reads the version without importing the package, which would need its dependencies."""
    namespace: dict[str, str] = {}
    exec((ROOT / 'mmseg_semi' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


readme = ROOT / 'README.md'
setup(
    name='mmseg-semi',
    version=version(),
    description='Semi-supervised semantic segmentation on top of MMSegmentation',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author='The mmseg_semi Authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='computer vision, semantic segmentation, semi-supervised learning',
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmseg_semi', 'mmseg_semi.*']),
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('onedl', 'openmmlab', 'demo', 'tests')},
    zip_safe=False)
