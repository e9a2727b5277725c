"""The demo data set: same bytes, whole or absent, no masks of unlabeled images."""
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_semi.datasets import SemiDataset, ShapesDataset, UnlabeledDataset

SCRIPT = Path(__file__).parents[2] / 'tools/dataset_converters/make_shapes.py'
spec = importlib.util.spec_from_file_location('make_shapes', SCRIPT)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
FEW = dict(num_labeled=3, num_unlabeled=4, num_val=2)


def hashes(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(Path(folder).rglob('*')) if p.is_file()}


def test_same_seed_same_bytes(tmp_path):
    assert tool.make_shapes(tmp_path / 'a', seed=1, **FEW)
    args = [sys.executable, str(SCRIPT), '--out', str(tmp_path / 'b'), '--seed', '1', '--num-labeled', '3',
            '--num-unlabeled', '4', '--num-val', '2']
    assert 'wrote' in subprocess.run(args, check=True, capture_output=True, text=True).stdout
    assert hashes(tmp_path / 'a') == hashes(tmp_path / 'b')
    assert 'kept' in subprocess.run(args, check=True, capture_output=True, text=True).stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b']
    tool.make_shapes(tmp_path / 'c', seed=2, **FEW)
    assert not set(hashes(tmp_path / 'a').values()) & set(hashes(tmp_path / 'c').values())


def test_layout_and_labels(tmp_path):
    tool.make_shapes(tmp_path / 'd', **FEW)
    names = set(hashes(tmp_path / 'd')) - {'manifest.json'}
    assert {n.rsplit('/', 1)[0] for n in names} == {
        'img_dir/train', 'img_dir/unlabeled', 'img_dir/val', 'ann_dir/train', 'ann_dir/val'}
    assert len(names) == 3 * 2 + 4 + 2 * 2
    image, mask = tool.scene(0, 'val', 1)
    assert (cv2.imread(str(tmp_path / 'd/img_dir/val/0001.png'))[..., ::-1] == image).all()
    assert (cv2.imread(str(tmp_path / 'd/ann_dir/val/0001.png'), -1) == mask).all()


def test_a_dozen_scenes_show_every_class_equally_often():
    seen = np.stack([np.bincount(tool.scene(0, 'train', i)[1].ravel(), minlength=7) for i in range(12)])
    assert seen.shape[1] == len(tool.CLASSES)
    assert ((seen > 0).sum(0) >= 4).all()
    assert (seen.sum(0) / seen.sum() > 0.02).all()


def test_resumes_and_refuses(tmp_path):
    out = tmp_path / 'd'
    out.mkdir()
    assert tool.make_shapes(out, **FEW)
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    assert not tool.make_shapes(out, **FEW)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    with pytest.raises(FileExistsError, match='holds no complete shapes set'):
        tool.make_shapes(out, seed=1, **FEW)
    (out / 'img_dir/unlabeled/0000.png').write_bytes(b'cut')
    with pytest.raises(FileExistsError, match='holds no complete shapes set'):
        tool.make_shapes(out, **FEW)
    with pytest.raises(ValueError, match="'train': 0"):
        tool.make_shapes(tmp_path / 'e', num_labeled=0)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args):
        yield 'img_dir/train/0000.png', b'x'
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'files', stop)
    with pytest.raises(KeyboardInterrupt):
        tool.make_shapes(tmp_path / 'd', **FEW)
    assert not list(tmp_path.iterdir())


def test_dataset_classes(tmp_path):
    assert ShapesDataset.METAINFO['classes'] == tool.CLASSES
    assert len(ShapesDataset.METAINFO['palette']) == len(tool.CLASSES)
    tool.make_shapes(tmp_path / 'd', **FEW)
    labeled = ShapesDataset(data_root=str(tmp_path / 'd'),
                            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'))
    unlabeled = UnlabeledDataset(data_root=str(tmp_path / 'd'), data_prefix=dict(img_path='img_dir/unlabeled'))
    assert SemiDataset(labeled, unlabeled).cumulative_sizes == [3, 7]
