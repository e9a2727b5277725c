"""The comparison of masks with their ground truth, as a user calls it."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def write(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, dtype=np.uint8)).save(path)


@pytest.fixture
def run(tmp_path):
    """Function that runs the tool on ``tmp_path / 'masks'`` and the ground truth of three images of classes a, b, c."""
    for name, labels in {'one/x': [[0, 0], [1, 1]], 'one/y': [[1, 1], [1, 255]], 'two': [[2, 2], [2, 2]]}.items():
        write(tmp_path / 'ann' / f'{name}.png', labels)
        write(tmp_path / 'img' / f'{name}.jpg', np.zeros((2, 2, 3)))
    labeled = dict(
        type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=tuple('abc')), ann_file='labeled.txt',
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
    Config(dict(train_dataloader=dict(dataset=labeled))).dump(str(tmp_path / 'config.py'))

    def tool(*options):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', str(ROOT / 'tools/analysis_tools/mask_accuracy.py'),
             str(tmp_path / 'config.py'), str(tmp_path / 'masks'), *options], capture_output=True, text=True)

    return tool


@pytest.mark.slow
def test_figures(run, tmp_path):
    write(tmp_path / 'masks' / 'one' / 'x.png', [[0, 1], [1, 255]])  # 255 of the mask is left out, too
    write(tmp_path / 'masks' / 'one' / 'y.png', [[1, 0], [1, 2]])  # 255 of the ground truth
    write(tmp_path / 'masks' / 'two.png', [[2, 2], [2, 0]])
    done = run('--json')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['classes'] == ['a', 'b', 'c']
    (row, ) = found['folders']
    # a: one pixel right of two true and three found; b: three of four and four; c: three of four and three.
    assert row['IoU'] == pytest.approx([25, 60, 75]) and row['mIoU'] == pytest.approx(160 / 3)
    assert row['share'] == pytest.approx([20, 40, 40]) and row['found'] == pytest.approx([30, 40, 30])
    assert row['right'] == pytest.approx(70)
    assert 'mIoU 53.3, 70.0 % of the pixels are right' in done.stdout
    assert 'b  IoU  60.0    40.0 % ->  40.0 %' in done.stdout
    row = json.loads(run('--json', '--only', 'one/*').stdout.splitlines()[-1])['folders'][0]
    assert row['IoU'] == [pytest.approx(100 / 3), pytest.approx(60), None] and row['mIoU'] == pytest.approx(140 / 3)


@pytest.mark.slow
@pytest.mark.parametrize('name, labels, says', [
    ('three', [[0, 0], [0, 0]], 'three.png has no image in'),
    ('two', [[0, 0]], r'two.png is (1, 2), its image'),
    ('two', [[0, 1], [2, 3]], 'holds labels [3]; expected 0..2 or 255'),
])
def test_mistakes(run, tmp_path, name, labels, says):
    write(tmp_path / 'masks' / f'{name}.png', labels)
    done = run()
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    done = run('--only', 'none*')
    assert done.returncode == 2 and "has 1 masks (PNG), none of them fits --only 'none*'" in done.stderr
