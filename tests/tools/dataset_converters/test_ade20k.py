"""ADE20K's SceneParsing release: checked, counted, never shifted twice."""
import json
import re

import numpy as np
import pytest

SIZE = (20, 30)
COUNTS = dict(train=2, val=1)
BASE = 'ADEChallengeData2016'
NAMES = dict(training=['ADE_train_00000001', 'ADE_train_00000002'], validation=['ADE_val_00000001'])


@pytest.fixture
def files(kit):
    rng, files = np.random.default_rng(0), {f'{BASE}/sceneCategories.txt': b'ADE_train_00000001 airport_terminal\n'}
    for folder, names in NAMES.items():
        for name in names:
            mask = np.zeros(SIZE, np.uint8)
            mask[5:10], mask[10:] = 1, 150
            files[f'{BASE}/images/{folder}/{name}.jpg'] = kit.photo(rng, *SIZE)
            files[f'{BASE}/annotations/{folder}/{name}.png'] = kit.encode(mask)
    rows = [f'{i}\t0.1\t10\t1\tthing {i}, alias  ' for i in range(1, 151)]
    files[f'{BASE}/objectInfo150.txt'] = '\n'.join(['Idx\tRatio\tTrain\tVal\tName', *rows, '']).encode()
    return files


@pytest.fixture
def tool(load):
    return load('ade20k', COUNTS)


def test_from_the_archive(tool, run, kit, files, tmp_path):
    out = tmp_path / 'out'
    status, printed, err = run(tool, kit.write_zip(tmp_path / f'{BASE}.zip', files), '--out', out)
    assert status == 0, err
    pixels = json.loads((out / 'ade20k.json').read_text())['parts']['train']['pixels']
    assert len(pixels) == 151
    assert (pixels['thing 1'], pixels['thing 2'], pixels['thing 150'], pixels['(ignored)']) == (300, 0, 600, 300)
    assert 'train: 2 masks (2 read)' in printed
    for folder, names in NAMES.items():
        for name in names:  # as released
            assert (out / f'annotations/{folder}/{name}.png').read_bytes() == (
                files[f'{BASE}/annotations/{folder}/{name}.png'])


def test_the_configs_read_it(tool, run, kit, files, tmp_path):
    """The dataset shifts the labels once: 0 is ignored, 1 is class 0."""
    from mmseg.datasets import ADE20KDataset
    out = tmp_path / 'out'
    root = kit.write_folder(tmp_path / 'in', files) / BASE
    assert run(tool, root.parent, '--out', out)[0] == 0 and not (root / 'ade20k.json').exists()
    data = ADE20KDataset(data_root=str(out), data_prefix=dict(
        img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                  dict(type='CheckSegMap', num_classes=150)])
    assert len(data) == 2 and np.unique(data[0]['gt_seg_map']).tolist() == [0, 149, 255]


@pytest.mark.parametrize('name, content, message', [
    ('images/validation/ADE_val_00000001.jpg', None, r'val 0 .expected 1.; .*sceneparsing'),
    ('annotations/validation/ADE_val_00000001.png', None, '1 of 3 masks missing: .*ADE_val_00000001.png'),
    ('annotations/validation/ADE_val_00000001.png', 151, r'labels \[151\]; expected 0..150'),
    ('objectInfo150.txt', b'Idx\n1\tx\n', 'names 1 classes; expected 150'),
])
def test_mistakes(tool, run, kit, files, tmp_path, name, content, message):
    files[f'{BASE}/{name}'] = kit.encode(np.full(SIZE, content, np.uint8)) if isinstance(content, int) else content
    root = kit.write_folder(tmp_path, {k: v for k, v in files.items() if v is not None})
    status, _, err = run(tool, root)
    assert status == 2 and re.search(message, err.splitlines()[-1]), err
