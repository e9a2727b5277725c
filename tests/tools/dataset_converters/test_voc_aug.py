"""VOC 2012 and SBD in the layout of their archives: who trains, whose mask counts, resume after a kill."""
import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

SIZE = (30, 40)
# VOC trains on a and b, validates on v and w. SBD knows b, c and v as train, d and w as val.
TRAIN, VAL = ['2007_a', '2007_b', '2008_c', '2008_d'], ['2007_v', '2007_w']
COUNTS = dict(train=4, val=2)


def mat(tmp_path, segmentation):
    """An annotation as SBD writes it: a struct of a cell array, a mask and a list."""
    from scipy.io import savemat
    from scipy.sparse import csc_matrix
    boundaries = np.empty((20, 1), object)
    for i in range(20):
        boundaries[i, 0] = csc_matrix(SIZE)
    savemat(tmp_path / 'one.mat', dict(GTcls=dict(
        Boundaries=boundaries, Segmentation=segmentation, CategoriesPresent=np.array([[1]], np.uint8))),
        do_compression=True)
    return (tmp_path / 'one.mat').read_bytes()


def draw(seed, void=False):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 21, (3, 4)), np.ones((10, 10))).astype(np.uint8)
    if void:
        labels[:2] = 255
    return labels


@pytest.fixture
def voc_files(kit):
    rng, base = np.random.default_rng(0), 'VOCdevkit/VOC2012'
    files = {f'{base}/JPEGImages/{name}.jpg': kit.photo(rng, *SIZE) for name in [*TRAIN, *VAL, '2012_unused']}
    for i, name in enumerate(['2007_a', '2007_b', *VAL]):
        files[f'{base}/SegmentationClass/{name}.png'] = kit.encode(draw(i, void=True), palette=True)
    lists = dict(train=['2007_a', '2007_b'], val=VAL, trainval=['2007_a', '2007_b', *VAL])
    for part, names in lists.items():
        files[f'{base}/ImageSets/Segmentation/{part}.txt'] = ''.join(f'{name}\n' for name in names).encode()
    files[f'{base}/Annotations/2007_a.xml'] = b'<annotation/>'
    return files


@pytest.fixture
def sbd_files(tmp_path):
    base = 'benchmark_RELEASE/dataset'
    files = {f'{base}/train.txt': b'2007_b\n2008_c\n2007_v\n', f'{base}/val.txt': b'2008_d\n2007_w\n'}
    for i, name in enumerate(['2007_b', '2008_c', '2008_d', *VAL], start=10):
        files[f'{base}/cls/{name}.mat'] = mat(tmp_path, draw(i))
        files[f'{base}/inst/{name}.mat'] = b'not read'
    return files


@pytest.fixture
def archives(kit, tmp_path, voc_files, sbd_files):
    return [kit.write_tar(tmp_path / 'VOCtrainval_11-May-2012.tar', voc_files),
            kit.write_tar(tmp_path / 'benchmark.tgz', sbd_files, 'w:gz')]


@pytest.fixture
def tool(load):
    return load('voc_aug', COUNTS)


def test_known_histogram(tool, run, archives, tmp_path, monkeypatch):
    """VOC's own training masks, a and b, are compared label by label; SBD's are not."""
    counts = np.bincount(np.concatenate([draw(i, void=True).ravel() for i in (0, 1)]), minlength=256)
    known = (*counts[:21].tolist(), int(counts[255]))
    monkeypatch.setattr(tool, 'KNOWN', known)
    status, printed, err = run(tool, *archives, '--out', tmp_path / 'out')
    assert status == 0 and "the masks of VOC's train.txt have the known class histogram" in printed
    assert 'warning' not in err
    monkeypatch.setattr(tool, 'KNOWN', (*known[:3], known[3] + 1, *known[4:-1], known[-1] + 2000))
    status, printed, err = run(tool, *archives, '--out', tmp_path / 'out')
    assert status == 0 and 'have the known' not in printed
    assert "warning: 2 of 22 labels in the masks of VOC's train.txt differ" in err
    assert f'such as bird {known[3]:,} pixels, known {known[3] + 1:,}: is this the official archive?' in err


def test_the_known_histogram_is_that_of_1464_photographs(load):
    """What else is known of the set: the mean size, and three quarters of background (the paper on FCN)."""
    known = load('voc_aug').KNOWN
    assert 500 * 350 < sum(known) / 1464 < 500 * 375
    assert 0.7 < known[0] / sum(known[:21]) < 0.76
    assert max(known[1:21]) == known[15] and min(known[1:21]) == known[2]  # persons, bicycles


def masks(kit, out):
    return {path.stem: kit.labels(path) for path in sorted((out / 'SegmentationClassAug').iterdir())}


def test_from_the_archives(tool, run, kit, archives, tmp_path):
    out = tmp_path / 'out'
    status, printed, err = run(tool, *archives, '--out', out)
    assert status == 0, err
    found = masks(kit, out)
    assert list(found) == TRAIN
    for name, expected in [('2007_a', draw(0, void=True)), ('2007_b', draw(1, void=True)), ('2008_c', draw(11)),
                           ('2008_d', draw(12))]:  # VOC's own mask wins for b
        assert (found[name] == expected).all()
    assert (out / 'ImageSets/Segmentation/trainaug.txt').read_text().split() == TRAIN
    assert not (out / 'Annotations').exists() and not (out / 'SBD/inst').exists()
    summary = json.loads((out / 'voc_aug.json').read_text())['parts']
    assert summary['train']['masks'] == 4 and summary['val']['masks'] == 2
    assert sum(summary['train']['pixels'].values()) == 4 * 30 * 40
    assert summary['train']['pixels']['(ignored)'] == 2 * 2 * 40
    assert 'train: 4 masks (4 written), sha256 ' + summary['train']['sha256'] in printed
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*.*') if path.suffix != '.json'}
    status, printed, err = run(tool, *archives, '--out', out)
    assert status == 0 and 'train: 4 masks (4 kept)' in printed and 'had the digest' not in err
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {out / 'ImageSets/Segmentation/trainaug.txt'}


def test_the_configs_read_it(tool, run, archives, tmp_path):
    from mmseg.datasets import PascalVOCDataset
    run(tool, *archives, '--out', tmp_path / 'out')
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=21)]
    for part, folder in [('trainaug', 'SegmentationClassAug'), ('val', 'SegmentationClass')]:
        data = PascalVOCDataset(
            data_root=str(tmp_path / 'out'), ann_file=f'ImageSets/Segmentation/{part}.txt', pipeline=load,
            data_prefix=dict(img_path='JPEGImages', seg_map_path=folder))
        assert sorted(np.unique(np.stack([sample['gt_seg_map'] for sample in data])))[-1] == 255
        assert len(data) == COUNTS['train' if part == 'trainaug' else 'val']


def test_from_folders(tool, run, kit, voc_files, sbd_files, tmp_path):
    """In place, and with --out beside data that are not touched."""
    kit.write_folder(tmp_path, {**voc_files, **sbd_files})
    voc, sbd = tmp_path / 'VOCdevkit/VOC2012', tmp_path / 'benchmark_RELEASE/dataset'
    before = sorted(path for path in voc.rglob('*'))
    status, _, err = run(tool, tmp_path, tmp_path, '--out', tmp_path / 'out')
    assert status == 0, err
    assert sorted(path for path in voc.rglob('*')) == before
    assert (tmp_path / 'out/JPEGImages/2007_a.jpg').samefile(voc / 'JPEGImages/2007_a.jpg')
    status, _, err = run(tool, voc, sbd)
    assert status == 0, err
    assert (voc / 'voc_aug.json').read_bytes() == (tmp_path / 'out/voc_aug.json').read_bytes()
    for name, labels in masks(kit, voc).items():
        assert (labels == masks(kit, tmp_path / 'out')[name]).all()


def test_masks_from_a_personal_drive(tool, run, kit, archives, tmp_path):
    out = tmp_path / 'out'
    kit.write_folder(out, {'SegmentationClassAug/2008_c.png': kit.encode(draw(99))})
    status, _, err = run(tool, *archives, '--out', out)
    assert status == 2 and '1 of 6 masks' in err and 'the first is 2008_c' in err
    assert (kit.labels(out / 'SegmentationClassAug/2008_c.png') == draw(99)).all()
    assert not (out / 'voc_aug.json').exists() and not (out / 'ImageSets/Segmentation/trainaug.txt').exists()
    (out / 'SegmentationClassAug/2008_c.png').unlink()
    assert run(tool, *archives, '--out', out)[0] == 0


@pytest.mark.parametrize('change, message', [
    (lambda voc, sbd: voc.pop('VOCdevkit/VOC2012/JPEGImages/2008_c.jpg'), '1 of 6 images missing: .*2008_c.jpg; .*VOC'),
    (lambda voc, sbd: sbd.pop('benchmark_RELEASE/dataset/cls/2008_c.mat'), '1 of 2 masks missing: .*2008_c.mat; .*SBD|'
     'benchmark.tgz'),
    (lambda voc, sbd: sbd.pop('benchmark_RELEASE/dataset/val.txt'), '1 of 2 lists missing'),
    (lambda voc, sbd: sbd.update({'benchmark_RELEASE/dataset/val.txt': b'2008_d\n2008_e\n'}), 'train 5 .expected 4.'),
    (lambda voc, sbd: sbd.update({'benchmark_RELEASE/dataset/cls/2008_c.mat': b'cut'}), 'no class annotation of SBD'),
    (lambda voc, sbd: voc.update({'VOCdevkit/VOC2012/SegmentationClass/2007_a.png': b'cut'}), 'cannot be read'),
])
def test_mistakes(tool, run, kit, voc_files, sbd_files, tmp_path, change, message):
    change(voc_files, sbd_files)
    voc = kit.write_tar(tmp_path / 'voc.tar', voc_files)
    sbd = kit.write_tar(tmp_path / 'sbd.tgz', sbd_files, 'w:gz')
    status, _, err = run(tool, voc, sbd, '--out', tmp_path / 'out')
    assert status == 2
    assert re.search(message, err.splitlines()[-1]), err


SLOW = '''
import time, voc_aug
voc_aug.COUNTS = dict(train=4, val=2)
store = voc_aug.store
def slow(*args):
    time.sleep(0.3)
    return store(*args)
voc_aug.store = slow
sys.exit(voc_aug.guard(voc_aug.main))
'''


@pytest.mark.parametrize('sent, workers, status', [(signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 130),
                                                   (signal.SIGKILL, 1, -signal.SIGKILL)])
def test_interrupted(tool, run, kit, archives, tmp_path, sent, workers, status):
    """Ctrl-C leaves whole files only; whatever ended it, the same command finishes with the same result."""
    out = tmp_path / 'out'
    process = subprocess.Popen(**kit.child(SLOW, *archives, '--out', out, '--workers', workers),
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    end = time.monotonic() + 60
    while not list(out.glob('SegmentationClassAug/*.png')) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, sent)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == status, err
    assert not (out / 'voc_aug.json').exists()
    if status == 130:
        assert err.endswith('interrupted; the same command continues\n') and 'Traceback' not in err
        assert not list(out.rglob('*.part*'))
    done = len(masks(kit, out))
    code, printed, err = run(tool, *archives, '--out', out)
    assert code == 0 and f'{done} kept' in printed, err
    run(tool, *archives, '--out', tmp_path / 'unbroken')
    assert (out / 'voc_aug.json').read_bytes() == (tmp_path / 'unbroken/voc_aug.json').read_bytes()
