"""Converters as modules, and small archives in the layout of the real ones."""
import importlib
import io
import os
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[3] / 'tools' / 'dataset_converters'


@pytest.fixture
def load(monkeypatch):
    """Function that imports a module of tools/dataset_converters and tells it how many images there are."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def load(name, counts=None):
        module = importlib.import_module(name)
        if counts is not None:
            monkeypatch.setattr(module, 'COUNTS', counts)
        return module

    return load


@pytest.fixture
def run(capsys):
    """Function that runs a converter by its command line; returns the exit status and what it printed."""

    def run(module, *args, workers=1):
        capsys.readouterr()
        status = module.guard(lambda: module.main([*map(str, args), '--workers', str(workers)]))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def encode(array, palette=False, form='PNG'):
    """An image file as bytes."""
    image, file = Image.fromarray(array), io.BytesIO()
    if palette:
        image.putpalette(np.random.default_rng(7).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(file, format=form)
    return file.getvalue()


def photo(rng, height, width, form='JPEG'):
    return encode(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), form=form)


def write_tar(path, files, mode='w'):
    """A tar of {name: bytes}, with entries for the folders as real ones have."""
    with tarfile.open(path, mode) as tar:
        for folder in sorted({str(Path(name).parent) for name in files}):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as content:
        for folder in sorted({str(Path(name).parent) for name in files}):
            content.writestr(f'{folder}/', b'')
        for name, data in files.items():
            content.writestr(name, data)
    return path


def write_folder(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def labels(path):
    with Image.open(path) as image:
        assert image.mode == 'L'
        return np.array(image)


def child(code, *args):
    """Arguments of Popen for a converter in its own process group, where Ctrl-C is not ignored."""
    start = 'import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n'
    env = {**os.environ, 'PYTHONPATH': str(TOOLS), 'OMP_NUM_THREADS': '1'}
    return dict(args=[sys.executable, '-c', start + code, *map(str, args)], env=env, start_new_session=True)


@pytest.fixture(scope='session')
def kit():
    """The functions above, for the tests."""
    return types.SimpleNamespace(encode=encode, photo=photo, write_tar=write_tar, write_zip=write_zip, labels=labels,
                                 write_folder=write_folder, child=child)
