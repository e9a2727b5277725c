"""Labels of a network with random weights: kernels, workers, mirrors, memory."""
import copy
import io
import multiprocessing
import os
import weakref

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.nn import functional as F

from mmseg_semi.engine.runner import PseudoLabelStage, pseudo_label_stage
from mmseg_semi.engine.runner.image_records import share_records
from mmseg_semi.engine.runner.pseudo_label_stage import (
    load_trained,
    predict_labels,
    predict_probability,
    preprocessor_divisor,
)
from mmseg_semi.engine.runner.samples import read_samples
from mmseg_semi.registry import MODELS

STAGE = 'mmseg_semi.engine.runner.pseudo_label_stage'
BLANK = np.zeros((33, 33), np.uint8)


@pytest.fixture
def network(tiny_cfg, tmp_path):
    """The model of config.py and model.pth, in eval mode."""
    cfg = dict(type='EncoderDecoder', **{key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'test_cfg')},
               data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True,
                                      size=(33, 33)))
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'model.pth')
    Config(dict(model=cfg, default_scope='mmseg')).dump(str(tmp_path / 'config.py'))
    return model.eval()


@pytest.fixture
def make(network, data_root, tmp_path):
    """Function that makes a stage; one of its five images is larger than the others."""
    image = np.random.default_rng(2).integers(255, size=(40, 61, 3)).astype(np.uint8)
    cv2.imwrite(str(data_root / 'img/unlabeled/u/1.png'), image)

    def make(folder='label', plan_cfg=None, **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = dict(dict(scales=(0.5, 1.0, 1.5)), **options)
        return PseudoLabelStage(str(tmp_path / 'config.py'), str(tmp_path / 'model.pth'),
                                dict(data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled')), **options,
                                folder=tmp_path / folder, here=tmp_path, launcher='none', env_cfg={},
                                plan_cfg=plan_cfg or {})

    return make


def flags():
    return (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
            torch.are_deterministic_algorithms_enabled())


# ---- the network ------------------------------------------------------------------------------------------------


def test_a_preprocessor_beside_the_model_is_used(network, tmp_path):
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.data_preprocessor = dict(cfg.model.pop('data_preprocessor'), test_cfg=dict(size_divisor=7))
    model, _ = load_trained(cfg, str(tmp_path / 'model.pth'))
    assert torch.equal(model.data_preprocessor.mean, network.data_preprocessor.mean) and preprocessor_divisor(cfg) == 7
    assert 'data_preprocessor' not in cfg.model


def test_one_channel_for_two_classes_is_refused(network, tmp_path):
    """Its softmax is 1 everywhere: every pixel would be class 0."""
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.3)
    with pytest.raises(ValueError, match=r'model\.pth: decode_head.out_channels=1 for num_classes=2'):
        load_trained(cfg, str(tmp_path / 'model.pth'))


# ---- kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('deterministic', [False, True])
def test_labels_do_not_depend_on_the_training_before(make, monkeypatch, deterministic):
    """A training sets kernels for its process; a run that goes on with the labels has had none."""
    seen = []
    monkeypatch.setattr(f'{STAGE}.predict_labels', lambda *_: seen.append(flags()) or [BLANK])
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', not deterministic)
    before = flags()
    make(plan_cfg=dict(randomness=dict(deterministic=deterministic))).run()
    assert set(seen) == {(False, deterministic, deterministic)} and len(seen) == 5
    assert flags() == before


# ---- workers ----------------------------------------------------------------------------------------------------


def masks_of(stage):
    folder = stage.run()['masks']
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob('*.*'))}


@pytest.mark.parametrize('num_workers, batch_size', [(0, 1), (3, 1), (2, 3)])
def test_masks_equal_images_one_by_one(make, network, data_root, num_workers, batch_size):
    """Read, predicted and mirrored one after another."""
    made = masks_of(make(num_workers=num_workers, batch_size=batch_size))
    assert list(made) == ['manifest.jsonl', 'u/0.png', 'u/1.png', 'u/2.png', 'v/0.png', 'v/1.png']
    for name in list(made)[1:]:
        image = cv2.imread(str(data_root / 'img/unlabeled' / name))
        x = (torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() - 127) / 64
        expected = slow_ensemble(network, x, (0.5, 1.0, 1.5)).argmax(0).numpy()
        label = np.array(Image.open(io.BytesIO(made[name])))
        assert label.shape == image.shape[:2] and (label == expected).mean() > 0.999


def slow_ensemble(model, x, scales):
    total = 0
    for scale in scales:
        size = [int(side * scale) for side in x.shape[2:]]
        for mirrored in (False, True):
            y = F.interpolate(x, size, mode='bilinear')
            with torch.no_grad():
                logits = model.decode_head(model.extract_feat(y.flip(3) if mirrored else y))
            logits = F.interpolate(logits, size, mode='bilinear', align_corners=model.align_corners)
            p = F.interpolate(logits.softmax(1), x.shape[2:], mode='bilinear', align_corners=model.align_corners)[0]
            total = total + (p.flip(2) if mirrored else p)
    return total / (2 * len(scales))


def test_images_are_read_by_workers_in_order(make, monkeypatch, tmp_path):
    pids, before = set(), set(multiprocessing.active_children())

    def predict(model, samples, *_):
        pids.add(samples[0]['pid'])
        assert len(set(multiprocessing.active_children()) - before) == 2
        return [BLANK]

    monkeypatch.setattr('mmseg_semi.datasets.UnlabeledDataset.__getitem__', lambda *_: dict(pid=os.getpid()))
    monkeypatch.setattr(f'{STAGE}.predict_labels', predict)
    masks_of(make(plan_cfg=dict(val_dataloader=dict(num_workers=2))))
    assert len(pids) == 2 and os.getpid() not in pids
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize('batch_size', [1, 2])
def test_images_are_not_held_in_memory(make, held, batch_size):
    """However many there are: a batch, and the first of the next."""
    counts = held(pseudo_label_stage)
    make(num_workers=0, batch_size=batch_size).run()
    assert len(counts) == 5 and max(counts) <= batch_size + 1


def test_a_stopped_stage_leaves_no_worker_and_goes_on(make, monkeypatch):
    whole, calls, before = masks_of(make('whole')), [], set(multiprocessing.active_children())

    def stop(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict_labels(*args)

    monkeypatch.setattr(f'{STAGE}.predict_labels', stop)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        make('cut', num_workers=2).run()
    # Ended although the traceback still holds the frames.
    assert interrupt.tb and not set(multiprocessing.active_children()) - before
    assert masks_of(make('cut', num_workers=2)) == whole and len(calls) == 3 + 3


@pytest.mark.parametrize('num_workers', [0, 2])
def test_an_image_that_cannot_be_read_is_named(make, data_root, num_workers):
    bad = data_root / 'img/unlabeled/v/0.png'
    bad.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'failed to load image: .*unlabeled/v/0\.png$') as error:
        make(num_workers=num_workers).run()
    assert '\n' not in str(error.value) and 'Traceback' in str(error.value.__cause__)
    assert len(list((make().folder / 'masks').rglob('*.png'))) == 3  # those before it
    stage = make(num_workers=num_workers)
    bad.write_bytes((data_root / 'img/unlabeled/v/1.png').read_bytes())
    assert len(masks_of(stage)) == 6


class Squares:
    """Samples 0, 1, 4, ...; the fifth cannot be made."""

    def __getitem__(self, index):
        if index == 5:
            raise KeyError('x')
        return index**2, os.getpid()

    def __len__(self):
        return 9

    def get_data_info(self, index):
        return dict(img_path=f'folder/{index}.png')


@pytest.mark.parametrize('num_workers', [0, 2])
def test_samples_come_in_the_order_asked_for(num_workers):
    state = torch.get_rng_state()
    numbers, pids = zip(*read_samples(Squares(), [7, 1, 8, 0, 2], num_workers), strict=True)
    assert numbers == (49, 1, 64, 0, 4) and len(set(pids)) == max(1, num_workers)
    assert (os.getpid() in pids) == (num_workers == 0)
    assert torch.equal(torch.get_rng_state(), state) and not list(read_samples(Squares(), [], num_workers))
    with pytest.raises(ValueError, match="^cannot read folder/5.png: KeyError: 'x'$"):
        list(read_samples(Squares(), [4, 5], num_workers))


@pytest.mark.parametrize('num_workers', [-1, 1.5])
def test_workers_are_counted(make, num_workers):
    with pytest.raises(ValueError, match=f'num_workers must be a whole number from 0 on, found {num_workers}'):
        make(num_workers=num_workers)


def test_the_number_of_workers_makes_no_stage_stale(make):
    assert make(num_workers=3).settings() == make().settings()
    assert make().num_workers == 2 and make(plan_cfg=dict(val_dataloader=dict(num_workers=5))).num_workers == 5


# ---- views ------------------------------------------------------------------------------------------------------


@pytest.fixture
def forwards(network, monkeypatch):
    """Shapes of what goes through the network."""
    shapes, inference = [], network.inference
    monkeypatch.setattr(network, 'inference', lambda x, metas: shapes.append(tuple(x.shape)) or inference(x, metas))
    return shapes


@pytest.mark.parametrize('pixels, expected', [
    (2**22, [(2, 3, 12, 20), (2, 3, 25, 41), (2, 3, 37, 61)]),
    (2500, [(2, 3, 12, 20), (2, 3, 25, 41), (1, 3, 37, 61), (1, 3, 37, 61)]),  # two of 25 x 41, one of 37 x 61
])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_an_image_and_its_mirror_share_a_forward(network, forwards, monkeypatch, pixels, expected, mode):
    monkeypatch.setattr(f'{STAGE}.FORWARD_PIXELS', pixels)
    if mode == 'slide':
        network.test_cfg.update(mode='slide', crop_size=(99, 99), stride=(66, 66))  # one window
    image = torch.randn(1, 3, 25, 41, generator=torch.Generator().manual_seed(0))
    probability = predict_probability(network, image, (0.5, 1.0, 1.5), True)
    assert forwards == expected
    torch.testing.assert_close(probability[0], slow_ensemble(network, image, (0.5, 1.0, 1.5)), atol=1e-5, rtol=1e-4)


def test_large_sums_are_made_on_the_cpu(network, monkeypatch):
    """A device of shapes only stands for one of little memory."""
    image, scales = torch.randn(1, 3, 25, 41, generator=torch.Generator().manual_seed(0)), (0.5, 2.0)
    expected, inference = predict_probability(network, image, scales, True), network.inference
    monkeypatch.setattr(network, 'inference', lambda x, metas: inference(torch.zeros(x.shape), metas))
    for values, device in ((4 * 50 * 82, 'meta'), (4 * 50 * 82 - 1, 'cpu')):
        monkeypatch.setattr(f'{STAGE}.DEVICE_VALUES', values)
        assert predict_probability(network, image.to('meta'), scales, True).device.type == device
    monkeypatch.setattr(network, 'inference', inference)
    assert torch.equal(predict_probability(network, image, scales, True), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU and CUDA_VISIBLE_DEVICES=0')
def test_sums_on_the_cpu_equal_those_on_the_gpu(network, monkeypatch):
    image = torch.randn(1, 3, 25, 41, generator=torch.Generator().manual_seed(0)).cuda()
    on_gpu = predict_probability(network.cuda(), image, (0.5, 2.0), True)
    monkeypatch.setattr(f'{STAGE}.DEVICE_VALUES', 0)
    on_cpu = predict_probability(network, image, (0.5, 2.0), True)
    assert on_gpu.is_cuda and not on_cpu.is_cuda
    torch.testing.assert_close(on_cpu, on_gpu.cpu(), atol=1e-5, rtol=1e-4)


def test_logits_are_gone_before_the_next_forward(network, monkeypatch):
    made, inference = [], network.inference

    def predict(x, metas):
        assert not any(array() is not None for array in made)
        array = inference(x, metas).numpy().copy()
        made.append(weakref.ref(array))  # alive as long as a tensor over it
        return torch.from_numpy(array)

    monkeypatch.setattr(network, 'inference', predict)
    monkeypatch.setattr(f'{STAGE}.FORWARD_PIXELS', 1)
    predict_probability(network, torch.randn(1, 3, 25, 41), (0.5, 1.0), True)
    assert len(made) == 4


def test_without_mirrors(network, forwards):
    image = torch.randn(1, 3, 25, 41, generator=torch.Generator().manual_seed(0))
    pair = predict_probability(network, image, (1.0, ), True)
    plain, mirror = (predict_probability(network, x, (1.0, ), False) for x in (image, image.flip(3)))
    torch.testing.assert_close(pair, (plain + mirror.flip(3)) / 2, atol=1e-5, rtol=1e-4)
    assert [shape[0] for shape in forwards] == [2, 1, 1]


# ---- batches ----------------------------------------------------------------------------------------------------


def test_images_of_one_size_are_predicted_together(make, monkeypatch):
    """The second of five images is larger than the others; batches are 0 to 2 and 3 to 4."""
    shapes = []
    monkeypatch.setattr('mmseg.models.EncoderDecoder.inference', lambda self, x, _: shapes.append(tuple(x.shape)) or
                        torch.zeros(len(x), 4, *x.shape[2:]))
    masks_of(make(batch_size=3, scales=(1.0, )))
    assert sorted(shapes) == [(2, 3, 40, 61), (4, 3, 33, 33), (4, 3, 33, 33)]
    for path in (make().folder / 'masks' / name for name in ('u/0.png', 'manifest.jsonl')):
        path.unlink()  # the records are lost, so is a mask
    masks_of(make(batch_size=3, scales=(1.0, )))
    assert sorted(shapes[3:]) == sorted(shapes[:3])


def test_a_batch_is_the_same_wherever_the_work_stopped(make, monkeypatch):
    """Its images are labeled again if one of them is missing, so the same sums are rounded in the same way."""
    options, calls = dict(batch_size=3, num_workers=0), []
    whole = masks_of(make(**options))
    (make().folder / 'masks/v/1.png').unlink()  # image 4: of the batch of 3 and 4

    def predict(model, samples, *args):
        calls.append([os.path.basename(sample['data_samples'].img_path) for sample in samples])
        return predict_labels(model, samples, *args)

    monkeypatch.setattr(f'{STAGE}.predict_labels', predict)
    assert masks_of(make(**options)) == whole and calls == [['0.png', '1.png']]


@pytest.mark.parametrize('rank', [0, 1])
def test_ranks_share_batches(tmp_path, monkeypatch, rank):
    made = []
    home = 'mmseg_semi.engine.runner.image_records'
    monkeypatch.setattr(f'{home}.get_dist_info', lambda: (rank, 2))
    told = iter([{'b'}, []])  # done before; missing in the end
    monkeypatch.setattr(f'{home}.broadcast_object_list', lambda answer: answer.__setitem__(0, next(told)))

    def make(indices):
        made.extend(indices)
        yield from (dict(n=index) for index in indices)

    share_records(tmp_path, 'x', list('abcdefgh'), bool, make, 3)
    assert made == [[0, 1, 2, 6, 7], [3, 4, 5]][rank]


@pytest.mark.parametrize('batch_size', [0, 1.5])
def test_batches_are_counted(make, batch_size):
    with pytest.raises(ValueError, match=f'batch_size must be a whole number from 1 on, found {batch_size}'):
        make(batch_size=batch_size)


def test_other_batches_are_other_settings(make):
    assert make(batch_size=2).settings() == dict(make().settings(), batch_size=2)
    assert 'batch_size' not in make(batch_size=1).settings()  # as it was before there was the option
