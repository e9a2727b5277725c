"""tools/predict.py: which files, what is written, that it continues, and that it agrees with tools/test.py."""
import csv
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_semi.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CLASSES, PALETTE = ('sky', 'road', 'car', 'tree'), [[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]]


@pytest.fixture(scope='module')
def tool():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools')
        yield importlib.import_module('predict')


@pytest.fixture
def project(tmp_path, tiny_pcr_cfg, monkeypatch):
    """A config, an untrained checkpoint whose student says the opposite of its teacher, and a few images."""
    rng = np.random.default_rng(0)
    for i, (name, size) in enumerate([('in/a/0.png', (33, 33)), ('in/b/0.png', (33, 33)), ('in/b/1.jpg', (29, 41)),
                                      ('in/2.png', (33, 33)), ('in/3.png', (33, 33))]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.kron(rng.integers(256, size=(6, 6, 3)), np.ones((8, 8, 1)))[:size[0], :size[1]]
        cv2.imwrite(str(path), (blocks * (0.4 + 0.1 * i)).astype(np.uint8))
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path / 'absent'), pipeline=load,
                   data_prefix=dict(img_path='img', seg_map_path='ann'),
                   metainfo=dict(classes=CLASSES, palette=PALETTE))
    cfg = Config(dict(custom_imports=dict(imports=['mmseg_semi']), default_scope='mmseg', model=tiny_pcr_cfg,
                      test_dataloader=dict(batch_size=1, dataset=dataset)))
    cfg.dump(str(tmp_path / 'config.py'))
    model = MODELS.build(tiny_pcr_cfg)
    model.decode_head.conv_seg.weight.data.mul_(30)  # a network that is sure of more than one class
    model.copy_student_to_teacher()
    model.decode_head.conv_seg.weight.data.neg_()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'net.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predict(tool, project, monkeypatch, capfd):
    """Function that runs the tool on these images; returns exit status, stdout, stderr."""

    def run(*args, images=('in', ), out='out'):
        command = ['predict.py', 'config.py', 'net.pth', *images, '--out', out, '--device', 'cpu', *args]
        monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = tool.main()
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        return (status, *capfd.readouterr())

    return run


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file())


def write_video(path, count=5, size=(48, 32)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 7, size)
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), 40 * i, np.uint8))
    writer.release()


def test_a_folder_gives_masks_overlays_confidence_and_areas(predict):
    status, printed, _ = predict('--confidence', '--opacity', '0.25')
    assert status == 0 and '5 masks made, 0 were up to date, 0 files failed' in printed
    keys = ['2', '3', 'a/0', 'b/0', 'b/1']
    assert files('out') == sorted(['areas.csv', *(f'{folder}/{key}.{kind}' for key in keys for folder, kind in (
        ('masks', 'png'), ('overlays', 'jpg'), ('confidence', 'png')))])
    with Image.open('out/masks/b/1.png') as picture:
        mask, palette = np.array(picture), picture.getpalette()[:12]
    assert mask.shape == (29, 41) and picture.mode == 'P' and palette == sum(PALETTE, [])
    assert len(np.unique(mask)) > 1
    with open('out/areas.csv') as table:
        rows = [row for row in csv.DictReader(table) if row['image'] == 'b/1.jpg']
    assert [row['class'] for row in rows] == list(CLASSES)
    assert [int(row['pixels']) for row in rows] == np.bincount(mask.ravel(), minlength=4).tolist()
    assert sum(float(row['share']) for row in rows) == pytest.approx(1, abs=1e-5)
    image, overlay = cv2.imread('in/b/1.jpg').astype(float), cv2.imread('out/overlays/b/1.jpg').astype(float)
    painted = image * 0.75 + np.array(PALETTE, float)[mask][..., ::-1] * 0.25
    assert abs(painted - overlay).mean() < 12 < abs(image - overlay).mean()  # JPEG of hard blocks
    confidence = cv2.imread('out/confidence/b/1.png', cv2.IMREAD_UNCHANGED)
    assert confidence.dtype == np.uint8 and confidence.shape == (29, 41) and confidence.min() >= 255 // 4


def test_a_photograph_that_lies_on_its_side_is_turned_as_its_exif_says(predict):
    pixels = cv2.imread('in/b/1.jpg')[..., ::-1]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    Image.fromarray(pixels).save('lying.jpg', exif=exif, quality=100)
    assert Image.open('lying.jpg').size == (41, 29)
    assert predict(images=['lying.jpg'])[0] == 0
    assert Image.open('out/masks/lying.png').size == Image.open('out/overlays/lying.jpg').size == (29, 41)
    predict('--opacity', '0', images=['lying.jpg'], out='upright')
    assert abs(np.array(Image.open('upright/overlays/lying.jpg')) - np.rot90(pixels, -1).astype(float)).mean() < 8


def test_batches_of_one_size_equal_single_images(predict):
    predict('--batch-size', '1', out='one')
    predict('--batch-size', '3', out='three')
    masks = [name for name in files('one') if name.endswith('png')]
    assert len(masks) == 5
    for name in masks:
        one, three = (np.array(Image.open(f'{out}/{name}')) for out in ('one', 'three'))
        assert (one == three).mean() > 0.999, name  # sums of another order may move a pixel on a border


def test_the_network_is_chosen(predict):
    for network in ('teacher', 'student'):
        assert predict('--network', network, images=['in/2.png'], out=network)[0] == 0
    predict(images=['in/2.png'], out='default')
    teacher, student, default = (np.array(Image.open(f'{out}/masks/2.png')) for out in (
        'teacher', 'student', 'default'))
    assert (teacher != student).any() and (teacher == default).all()


def test_a_second_run_keeps_what_is_up_to_date(predict, project):
    predict()
    made = Path('out/masks/2.png').stat().st_mtime_ns
    areas = Path('out/areas.csv').read_text()
    Path('out/areas.csv').unlink()
    assert '0 masks made, 5 were up to date' in predict()[1]
    assert Path('out/masks/2.png').stat().st_mtime_ns == made and Path('out/areas.csv').read_text() == areas
    Path('out/overlays/b/1.jpg').unlink()
    os.utime('in/2.png', (1, 1))
    assert '2 masks made, 3 were up to date' in predict()[1]
    assert '5 masks made' in predict('--opacity', '0.9')[1]
    assert '5 masks made' in predict('--opacity', '0.9', '--overwrite')[1]
    assert '5 masks made' in predict('--opacity', '0.9', '--network', 'student')[1]
    assert '5 masks made' in predict('--opacity', '0.9', '--network', 'student', '--confidence')[1]
    state = torch.load('net.pth', weights_only=True)
    state['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(state, 'net.pth')
    assert '5 masks made' in predict('--opacity', '0.9', '--network', 'student')[1]


def test_equal_names_never_meet(predict, tool):
    Image.open('in/2.png').save('in/2.bmp')
    status, _, _ = predict(images=['in/a', 'in/b/0.png', 'in/2.png', 'in/2.bmp', 'in/a/0.png'])
    assert status == 0
    assert files('out/masks') == ['2.bmp.png', '2.png.png', 'a/0.png', 'b/0.png']
    for name in ('2.png.bmp', '2.tif'):
        Image.open('in/2.png').save(f'in/{name}')
    keys = [source.key for source in tool.find_sources(['in']).sources]
    assert len(set(keys)) == len(keys) == 8


def test_results_inside_the_folder_are_not_read_again(predict):
    for _ in range(2):
        status, printed, _ = predict(out='in/out')
        assert status == 0 and '5 files' in printed
    assert '5 were up to date' in predict(images=['in/**/*.*g'], out='in/out')[1]


def test_masks_that_somebody_drew_are_not_overwritten(predict):
    Path('data/images').mkdir(parents=True)
    Path('data/masks').mkdir()
    Image.open('in/2.png').save('data/images/a.png')
    Image.new('L', (33, 33), 3).save('data/masks/a.png')
    status, _, errors = predict('--overwrite', images=['data/images'], out='data')
    assert status == 2 and 'data/masks/a.png was not written by this tool' in errors and '--out' in errors
    assert np.array(Image.open('data/masks/a.png')).min() == 3


def test_results_of_another_image_are_not_overwritten(predict):
    assert predict(images=['in/a'])[0] == 0
    os.utime('in/b/0.png', ns=(Path('in/a/0.png').stat().st_atime_ns, Path('in/a/0.png').stat().st_mtime_ns))
    before = Path('out/masks/0.png').read_bytes()
    status, _, errors = predict(images=['in/b'])
    assert status == 2 and Path('out/masks/0.png').read_bytes() == before
    assert f'out/masks/0.png is the result of {Path("in/a/0.png").resolve()}' in errors
    Path('in').rename('moved')  # the same images at another place are made again
    status, printed, _ = predict(images=['moved/a'])
    assert status == 0 and '1 masks made' in printed


def test_a_video_does_not_overwrite_the_frames_of_another(predict):
    for folder in ('one', 'two'):
        Path(folder).mkdir()
        write_video(f'{folder}/drive.mp4')
    assert predict(images=['one/drive.mp4'])[0] == 0
    status, _, errors = predict(images=['two/drive.mp4'])
    assert status == 2 and 'out/masks/drive.mp4/000000.png is the result of ' in errors


def test_a_confidence_map_is_of_the_same_network_as_its_mask(predict):
    predict('--confidence', '--network', 'teacher')
    predict('--network', 'student')
    assert '0 were up to date' in predict('--network', 'student', '--confidence')[1]
    assert '5 were up to date' in predict('--network', 'student', '--confidence')[1]
    teacher, student = (predict('--network', name, '--confidence', out=name) and cv2.imread(
        f'{name}/confidence/2.png', cv2.IMREAD_UNCHANGED) for name in ('teacher', 'student'))
    found = cv2.imread('out/confidence/2.png', cv2.IMREAD_UNCHANGED)
    assert (found == student).all() and (found != teacher).any()


def test_links_and_names_of_any_kind(predict, monkeypatch):
    Path('in/up').symlink_to('..')  # leads back to the folder that holds this one
    os.rename(b'in/3.png', b'in/caf\xe9.png')  # Latin-1, no UTF-8
    status, printed, _ = predict(images=['in'])
    assert status == 0 and '5 masks made' in printed
    assert '5 were up to date' in predict(images=['in'])[1]
    assert b'\ncaf\xe9.png,sky,' in Path('out/areas.csv').read_bytes()


def test_masks_of_any_size_are_read_again(predict, monkeypatch):
    from prediction import outputs
    assert outputs.Image.MAX_IMAGE_PIXELS is None


def test_an_unreadable_image_is_named_and_the_others_go_on(predict):
    Path('in/broken.jpg').write_text('no image')
    Path('in/broken.mp4').write_text('no video')
    status, printed, errors = predict(images=['in', 'in/*.mp4'])
    assert status == 1 and '5 masks made' in printed and '2 files failed' in printed
    assert 'in/broken.jpg: ' in errors and 'in/broken.mp4: OpenCV cannot decode the file' in errors
    assert 'Traceback' not in errors and 'broken' not in Path('out/areas.csv').read_text()


def network_fails(tool, monkeypatch, is_wrong, error):
    """Makes the network raise on every batch with a picture that ``is_wrong``; returns the sizes of the batches."""
    predict, sizes = tool.Predictor.predict, []

    def failing(self, pictures):
        sizes.append(len(pictures))
        if any(is_wrong(picture.image) for picture in pictures):
            raise error
        return predict(self, pictures)

    monkeypatch.setattr(tool.Predictor, 'predict', failing)
    return sizes


def test_only_the_image_fails_on_which_the_network_does(predict, tool, monkeypatch):
    wrong = cv2.imread('in/b/0.png')
    sizes = network_fails(tool, monkeypatch, lambda image: np.array_equal(image, wrong), ValueError('too\n small'))
    status, printed, errors = predict()
    assert status == 1 and '4 masks made' in printed and '1 files failed' in printed
    assert sizes == [4, 1, 1, 1, 1, 1] and 'Traceback' not in errors
    first, last = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert last.endswith('in/b/0.png: the network fails: ValueError: too small')
    assert first == f'{last}; the others go on'
    assert files('out/masks') == ['2.png', '3.png', 'a/0.png', 'b/1.png']
    assert 'b/0.png' not in Path('out/areas.csv').read_text() and 'b/1.jpg' in Path('out/areas.csv').read_text()


def test_a_network_that_always_fails_is_told_at_once_and_in_one_line(predict):
    for i in range(4):
        Image.open('in/2.png').save(f'in/z{i}.png')
    status, printed, errors = predict('--cfg-options', 'model.decode_head.in_index=7')
    assert status == 1 and '0 masks made' in printed and '9 files failed' in printed and 'Traceback' not in errors
    first, last = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert first.endswith('; the others go on')
    assert last.count('.png') == 5 and ' and 4 more: the network fails: IndexError: ' in last
    assert Path('out/areas.csv').read_text().splitlines() == ['image,class,pixels,share']


def test_a_video_fails_with_its_first_wrong_frame(predict, tool, monkeypatch):
    write_video('drive.mp4')  # frames of gray 0, 40, ...
    network_fails(tool, monkeypatch, lambda image: image.shape[:2] == (32, 48) and image.mean() > 100, ValueError('no'))
    status, printed, errors = predict('--batch-size', '2', images=['drive.mp4', 'in/2.png'])
    assert status == 1 and '4 masks made' in printed and '1 files failed' in printed
    assert errors.splitlines()[-1].endswith('drive.mp4: frame 3: the network fails: ValueError: no')
    assert files('out/overlays') == ['in/2.jpg']
    assert files('out/masks') == [*(f'drive.mp4/00000{i}.png' for i in range(3)), 'in/2.png']


def test_too_little_gpu_memory_makes_batches_smaller(predict, tool, monkeypatch):
    real = tool.Predictor.predict

    def fits_two(self, pictures):
        if len(pictures) > 2:
            raise torch.cuda.OutOfMemoryError()
        return real(self, pictures)

    for name in ('4.png', '5.png', '6.png'):
        cv2.imwrite(f'in/{name}', np.zeros((33, 33, 3), np.uint8))
    monkeypatch.setattr(tool.Predictor, 'predict', fits_two)
    status, printed, errors = predict('--batch-size', '4')
    assert status == 0 and '8 masks made' in printed
    assert errors.count('too small for 4 pictures at a time; on with 2') == 1


def test_an_image_that_never_fits_does_not_stop_the_others(predict, tool, monkeypatch):
    network_fails(tool, monkeypatch, lambda image: image.shape[:2] == (29, 41), torch.cuda.OutOfMemoryError())
    for _ in range(2):
        status, printed, errors = predict('--batch-size', '1')
        assert status == 1 and '1 files failed' in printed and '--device cpu' in errors.splitlines()[-1]
        assert errors.splitlines()[-1].split(': ')[1].endswith('in/b/1.jpg')
    assert '4 were up to date' in printed and 'a/0.png' in Path('out/areas.csv').read_text()


def test_a_video_gives_a_mask_per_frame_and_an_overlay_video(predict):
    write_video('drive.mp4')
    status, printed, _ = predict('--batch-size', '2', images=['drive.mp4', 'in/2.png'])
    assert status == 0 and '6 masks made' in printed
    frames = [f'drive.mp4/{i:06d}' for i in range(5)]
    assert files('out/masks') == [*(f'{name}.png' for name in frames), 'in/2.png']
    video = cv2.VideoCapture('out/overlays/drive.mp4.mp4')
    assert [video.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH)] == [
        5, 7, 48]
    names = [line.split(',')[0] for line in Path('out/areas.csv').read_text().splitlines()[1::4]]
    assert names == [*frames, 'in/2.png']
    Path('out/masks/drive.mp4/000003.png').rename('out/masks/drive.mp4/.000003.png.1.part.png')  # as a kill leaves it
    Path('out/overlays/drive.mp4.mp4').unlink()
    again = predict(images=['drive.mp4', 'in/2.png'])[1]
    assert '1 masks made, 5 were up to date' in again and Path('out/overlays/drive.mp4.mp4').is_file()
    assert '0 masks made, 6 were up to date' in predict(images=['drive.mp4', 'in/2.png'])[1]
    write_video('drive.mp4', count=3)
    assert '3 masks made, 1 were up to date' in predict(images=['drive.mp4', 'in/2.png'])[1]
    assert [name for name in files('out/masks/drive.mp4') if name[0] != '.'] == [f'00000{i}.png' for i in range(3)]


def test_videos_in_folders_are_told(predict):
    assert 'skipped' not in predict('--overwrite')[1]
    for name in ('in/a.mp4', 'in/a/b.avi', 'in/.hidden.avi'):
        write_video(name, count=1)
    status, printed, _ = predict()
    assert status == 0
    assert '2 videos in the folders are skipped; name them or use a glob to include them' in printed
    status, printed, _ = predict(images=['in', 'in/*.mp4'])
    assert '1 videos in the folders are skipped' in printed and '1 masks made' in printed


def test_videos_of_similar_names_have_overlays_of_their_own(predict):
    for name, count in (('clip.avi', 2), ('clip.avi.mp4', 3)):
        write_video(name, count)
    assert predict(images=['clip.avi', 'clip.avi.mp4'])[0] == 0
    assert files('out/overlays') == ['clip.avi.mp4', 'clip.avi.mp4.mp4']
    assert [cv2.VideoCapture(f'out/overlays/{name}').get(cv2.CAP_PROP_FRAME_COUNT)
            for name in files('out/overlays')] == [2, 3]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(predict):
    Path('out').mkdir()
    Path('out/masks').write_text('in the way')
    status, _, errors = predict()
    assert status == 1 and errors.splitlines()[-1].startswith('error: ') and 'masks' in errors.splitlines()[-1]


def test_nothing_half_is_left(tool, tmp_path):
    from prediction.outputs import whole
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / 'deep' / 'mask.png') as part:
        part.write_text('half')
        raise KeyboardInterrupt
    assert files(tmp_path) == []


@pytest.mark.parametrize('args, message', [
    (dict(images=['none.jpg']), 'error: none.jpg does not exist; expected an image'),
    (dict(images=['none*.jpg']), 'error: none*.jpg matches no image'),
    (dict(images=['config.py']), 'error: config.py is neither an image'),
    (dict(images=['empty']), 'error: empty holds no image'),
    (dict(out='config.py'), 'error: --out config.py is a file'),
])
def test_wrong_inputs_are_told_in_one_line(predict, args, message):
    Path('empty').mkdir()
    status, _, errors = predict(**args)
    assert status == 2 and errors.splitlines()[-1].startswith(message) and 'Traceback' not in errors


@pytest.mark.parametrize('options, message', [
    (['--device', 'cuda:99'], '--device cuda:99 cannot be used here'),
    (['--opacity', '2'], '--opacity 2: expected 0 to 1'),
    (['--batch-size', '0'], '--batch-size 0: expected 1 or more'),
    (['--cfg-options', 'model.decode_head.num_classes=5'],
     'error: net.pth does not fit config.py: decode_head.conv_seg.weight is (4, 12, 1, 1) in the checkpoint and '
     '(5, 12, 1, 1) in the config'),
    (['--cfg-options', 'model.backbone.depth=1'], 'error: config.py: its model cannot be built: KeyError'),
    (['--cfg-options', 'model.backbone.depth=34'], 'tensors are missing, the first is backbone.'),
])
def test_wrong_options_are_told_in_one_line(predict, options, message):
    status, _, errors = predict(*options)
    assert status == 2 and message in errors.splitlines()[-1] and not Path('out').exists()


def test_wrong_files_are_told_in_one_line(predict):
    Path('net.pth').write_text('no checkpoint')
    status, _, errors = predict()
    assert status == 2 and 'error: net.pth is no checkpoint that torch can read' in errors.splitlines()[-1]
    Path('net.pth').unlink()
    assert 'error: no checkpoint net.pth' in predict()[2]
    Path('config.py').write_text('model = dict(')
    status, _, errors = predict()
    assert status == 2 and 'error: config.py is not a usable config: ' in errors
    Path('config.py').unlink()
    assert 'error: no config config.py' in predict()[2]


@pytest.mark.parametrize('meta, palette, note', [
    (dict(dataset_meta=dict(classes=CLASSES, palette=[[9, 9, 9]] * 4)), [[9, 9, 9]] * 4, ''),
    (dict(dataset_meta=dict(classes=CLASSES)), PALETTE, 'net.pth has no colors of the classes: those of config.py'),
    (dict(dataset_meta=dict(palette=[[9, 9, 9]] * 4)), [[9, 9, 9]] * 4,
     'net.pth has no class names: those of config.py'),
    (dict(dataset_meta=None), PALETTE, 'net.pth has no class names and no colors of the classes: those of config.py'),
    (None, PALETTE, 'net.pth has no class names and no colors of the classes: those of config.py'),
])
def test_names_and_colors_that_a_checkpoint_lacks_are_those_of_the_config(predict, meta, palette, note):
    state = torch.load('net.pth', weights_only=True)['state_dict']
    torch.save(dict(state_dict=state, meta=meta), 'net.pth')
    status, printed, errors = predict(images=['in/2.png'])
    assert status == 0, errors
    assert note in printed and ('net.pth has no' in printed) == bool(note)
    assert Image.open('out/masks/2.png').getpalette()[:12] == sum(palette, [])
    assert [line.split(',')[1] for line in Path('out/areas.csv').read_text().splitlines()[1:]] == list(CLASSES)


@pytest.mark.parametrize('dataset', ['none', 'no colors', 'other classes'])
def test_colors_that_nobody_names_are_made_up_as_mmseg_does(predict, dataset):
    state = torch.load('net.pth', weights_only=True)['state_dict']
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), 'net.pth')
    cfg = Config.fromfile('config.py')
    if dataset == 'none':
        cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.pop('test_dataloader')
    else:
        cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES) if dataset == 'no colors' else dict(
            classes=CLASSES[:2], palette=PALETTE[:2])
    cfg.dump('config.py')
    status, printed, errors = predict(images=['in/2.png'])
    assert status == 0, errors
    if dataset != 'no colors':  # else mmseg's dataset makes them up itself
        assert 'net.pth has no colors of the classes and config.py none for 4 classes: they are made up' in printed
    made_up = np.random.RandomState(42).randint(0, 255, size=(4, 3))
    assert Image.open('out/masks/2.png').getpalette()[:12] == made_up.ravel().tolist()


def test_class_names_that_nobody_gives_are_asked_for(predict):
    cfg = Config.fromfile('config.py')
    cfg.test_dataloader.dataset.metainfo = None
    cfg.dump('config.py')
    status, _, errors = predict()
    assert status == 2 and errors.splitlines()[-1] == (
        'error: neither net.pth (meta.dataset_meta.classes) nor config.py (test_dataloader.dataset.metainfo.classes) '
        'names the classes; add them to the config')


def plain(cfg, **head):
    """The project's config as one of mmseg's own segmentor; leaves an untrained checkpoint of it."""
    keep = ('backbone', 'decode_head', 'test_cfg')
    cfg.model = dict({key: cfg.model[key] for key in keep}, type='EncoderDecoder', data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True))
    cfg.model.decode_head.update(head)
    cfg.dump('config.py')
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), 'net.pth')
    return model


def test_a_plain_segmentor_has_no_student(predict):
    plain(Config.fromfile('config.py'))
    assert predict()[0] == 0
    status, _, errors = predict('--network', 'student')
    assert status == 2 and '--network student: EncoderDecoder is a single network' in errors


def test_a_head_of_one_channel(predict):
    cfg = Config.fromfile('config.py')
    cfg.test_dataloader.dataset.metainfo = dict(classes=('ground', 'crop'), palette=PALETTE[:2])
    model = plain(cfg, num_classes=2, out_channels=1, threshold=0.5,
                  loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    model.decode_head.conv_seg.weight.data.mul_(100)
    torch.save(dict(state_dict=model.state_dict()), 'net.pth')
    assert predict('--confidence', images=['in/2.png'])[0] == 0
    confidence = cv2.imread('out/confidence/2.png', cv2.IMREAD_UNCHANGED)
    assert confidence.min() >= 127 and confidence.max() > 200  # of the class that is shown, so at least a half


def test_a_cascade(predict):
    cfg = Config.fromfile('config.py')
    head = cfg.model.decode_head
    cfg.model = dict({key: cfg.model[key] for key in ('backbone', 'test_cfg')}, type='CascadeEncoderDecoder',
                     num_stages=2, decode_head=[head, dict(
                         head, type='OCRHead', ocr_channels=8, channels=16, dropout_ratio=0)],
                     data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3))
    for key in ('num_convs', 'concat_input'):
        cfg.model.decode_head[1].pop(key, None)
    cfg.dump('config.py')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'net.pth')
    status, printed, errors = predict()
    assert status == 0 and '5 masks made' in printed, errors


def test_names_with_scope_and_absent_loaders(predict):
    cfg = Config.fromfile('config.py')
    cfg.test_pipeline = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations'), dict(type='PackSegInputs')]
    cfg.test_dataloader = None
    cfg.dump('config.py')
    content = torch.load('net.pth', weights_only=True)
    torch.save(dict(content, meta=dict(dataset_meta=dict(classes=CLASSES, palette=PALETTE))), 'net.pth')
    assert predict()[0] == 0


def test_a_fourth_channel_is_not_shown(predict):
    cfg = Config.fromfile('config.py')
    cfg.test_dataloader.dataset.pipeline[0].update(color_type='unchanged')
    cfg.model.backbone.in_channels = 4
    cfg.model.data_preprocessor.update(mean=[127.] * 4, std=[64.] * 4, bgr_to_rgb=False)
    cfg.dump('config.py')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'net.pth')
    pixels = np.array(Image.open('in/2.png'))
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save('four.png')
    status, _, errors = predict('--opacity', '0', images=['four.png'])
    assert status == 0, errors
    assert abs(np.array(Image.open('out/overlays/four.jpg')).astype(float) - pixels).mean() < 12


def test_a_config_without_the_teacher_of_its_checkpoint_is_told(predict):
    content = Path('net.pth').read_bytes()
    plain(Config.fromfile('config.py'))
    Path('net.pth').write_bytes(content)
    status, printed, _ = predict()
    assert status == 0 and 'net.pth holds a teacher, too, but config.py has none: its student predicts' in printed


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_the_next_run_continues(predict, project):
    image = (project / 'in/2.png').read_bytes()
    for i in range(400):
        (project / f'in/more{i}.png').write_bytes(image)
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', ROOT / 'tools/predict.py', 'config.py', 'net.pth', 'in', '--out', 'out',
         '--device', 'cpu', '--batch-size', '1'], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'), text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    limit = time.time() + 60
    while not list((project / 'out/masks').rglob('[!.]*.png')):  # a hidden one is not whole yet
        assert process.poll() is None and time.time() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and errors.endswith('interrupted; the same command continues\n')
    assert 'Traceback' not in errors and not list((project / 'out').rglob('.*'))
    done = len(files(project / 'out/masks'))
    assert 0 < done < 405
    for name in files(project / 'out/masks'):
        Image.open(project / 'out/masks' / name).load()
    assert f'{405 - done} masks made, {done} were up to date' in predict('--batch-size', '1')[1]


@pytest.mark.slow
def test_masks_equal_those_of_the_test_tool(predict, project):
    """Both tools on a network trained for a few steps; the classes come from the checkpoint."""
    rng = np.random.default_rng(1)
    for i in range(4):
        label = np.kron(rng.integers(4, size=(4, 4)), np.ones((8, 8))).astype(np.uint8)
        for folder, content in (('img', np.repeat(label[..., None] * 60, 3, axis=2)), ('ann', label)):
            (project / 'absent' / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(project / 'absent' / folder / f'{i}.png'), content)
    cfg = Config.fromfile('config.py')
    cfg.test_dataloader.dataset.update(img_suffix='.png')
    data = dict(cfg.test_dataloader, num_workers=0, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.merge_from_dict(dict(
        model=dict(data_preprocessor=dict(size=None)), test_dataloader=data, test_cfg=dict(type='TestLoop'),
        train_dataloader=dict(
            batch_size=4, num_workers=0, sampler=dict(type='LabeledUnlabeledSampler', counts=(2, 2)),
            collate_fn=dict(type='semi_collate'), dataset=dict(
                type='SemiDataset', labeled=data['dataset'], unlabeled=dict(
                    type='UnlabeledDataset', data_root=str(project / 'absent'), data_prefix=dict(img_path='img'),
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]))),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6, val_interval=7), val_dataloader=data,
        val_cfg=dict(type='ValLoop'), val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        custom_hooks=[dict(type='EMATeacherHook', decay=0.9), dict(type='PrototypeInitHook')],
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05)),
        work_dir=str(project / 'run'), experiment_name='test_predict',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=6)),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU'])))
    cfg.dump('config.py')

    Runner.from_cfg(Config(cfg.to_dict(), filename='config.py')).train()
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools/test.py', 'config.py', 'run/iter_6.pth', '--work-dir', 'tested',
         '--out', 'maps'], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stdout[-3000:]
    Path('net.pth').unlink()
    Path('run/iter_6.pth').rename('net.pth')
    status, _, errors = predict('--batch-size', '2', images=['absent/img'])
    assert status == 0, errors
    assert files('maps') == files('out/masks') == [f'{i}.png' for i in range(4)]
    for name in files('maps'):
        assert np.array_equal(np.array(Image.open(f'maps/{name}')), np.array(Image.open(f'out/masks/{name}'))), name
    assert len(np.unique(np.concatenate([np.array(Image.open(f'maps/{i}.png')) for i in range(4)]))) > 1


# ---- images of many bands --------------------------------------------------------------------------------------------


@pytest.fixture
def five_bands(project, tiny_pcr_cfg):
    """The project with a network of five bands and two .npy images of uint16, one of them cut off."""
    tiny_pcr_cfg.backbone.in_channels = 5
    tiny_pcr_cfg.data_preprocessor.update(mean=[100.] * 5, std=[50.] * 5)
    cfg = Config.fromfile('config.py')
    cfg.model = tiny_pcr_cfg
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadBands', value_range=(0, 2550))
    cfg.dump('config.py')
    model = MODELS.build(tiny_pcr_cfg)
    model.decode_head.conv_seg.weight.data.mul_(30)
    model.copy_student_to_teacher()
    torch.save(dict(state_dict=model.state_dict()), 'net.pth')
    image = np.kron(np.random.default_rng(0).integers(2551, size=(4, 5, 5)), np.ones((8, 8, 1))).astype(np.uint16)
    Path('bands/deep').mkdir(parents=True)
    np.save('bands/deep/0.npy', image)
    cv2.imwrite('bands/preview.png', np.zeros((32, 40), np.uint8))
    Path('bands/1.npy').write_bytes(Path('bands/deep/0.npy').read_bytes()[:1000])
    return image, model


def test_images_of_many_bands(predict, five_bands):
    image, model = five_bands
    status, printed, error = predict('--opacity', '0', images=['bands'])
    assert status == 1 and 'bands/1.npy: ValueError: cannot read image' in error and '1 masks made' in printed
    assert 'bands/preview.png: ValueError: the image has 1 bands, the network takes 5' in error
    inputs = torch.from_numpy(image / np.float32(10)).permute(2, 0, 1)
    expected, = model.eval().test_step(dict(inputs=[inputs], data_samples=[SegDataSample(
        metainfo=dict(ori_shape=(32, 40), img_shape=(32, 40)))]))
    mask = np.array(Image.open('out/masks/deep/0.png'))
    assert (mask == expected.pred_sem_seg.data[0].numpy()).all() and len(np.unique(mask)) > 1
    overlay = np.array(Image.open('out/overlays/deep/0.jpg')).astype(float)  # the first three bands as RGB
    assert abs(overlay - image[..., :3] / 10).mean() < 12 < abs(overlay - image[..., 2::-1] / 10).mean()


def test_videos_have_no_bands(predict, five_bands):
    write_video('a.mp4')
    write_video('bands/a.mp4')
    assert 'skipped' not in predict(images=['bands'])[1]
    status, _, error = predict(images=['a.mp4'])
    assert status == 2 and 'a.mp4 is neither an image' in error and '.npy' in error and 'LoadBands' in error
