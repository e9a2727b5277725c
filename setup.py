"""Builds the distribution ``mmseg-semi``; the requirements come from the files in ``requirements/``.

As in OpenMMLab's packages, configs, tools and model-index.yml are installed too: in ``mmseg_semi/.mim``, where mim
looks for them.
"""
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Puts ``.mim`` beside the modules: copies in the build folder, links in the checkout for ``pip install -e``."""

    def run(self) -> None:
        super().run()
        editable = getattr(self, 'editable_mode', False)
        folder = (ROOT if editable else Path(self.build_lib)) / 'mmseg_semi' / '.mim'
        shutil.rmtree(folder, ignore_errors=True)  # an earlier build may hold configs that are gone by now
        folder.mkdir(parents=True)
        for name in MIM:
            if editable:
                os.symlink(Path('..', '..', name), folder / name)
            elif (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
            else:
                shutil.copy(ROOT / name, folder / name)


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
    cmdclass={'build_py': BuildWithMim},
    packages=find_packages(include=['mmseg_semi', 'mmseg_semi.*']),
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('onedl', 'openmmlab', 'demo', 'docs', 'export', 'tests')},
    zip_safe=False)
