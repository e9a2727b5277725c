import importlib

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

import mmseg_semi.datasets
from mmseg_semi.datasets import CheckSegMap, FolderDataset
from mmseg_semi.datasets.mask_hint import Place, check_any_class, convert_command, mask_hint, mask_place

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 40), dtype=np.uint8)


def values(*found, dtype=np.uint8):
    return np.resize(np.array(found, dtype), (6, 8))


def palette(indices):
    picture = Image.fromarray(indices)
    picture.putpalette(bytes(range(256)) * 3)
    return picture


def gray(pixels):
    return Image.fromarray(pixels)


@pytest.mark.parametrize('picture, name, expected', [
    (gray(values(0, 128)), 'a.png', ['binary mask (0 and 128)', '--binary']),
    (gray(values(0, 255, dtype=bool)), 'a.png', []),  # 1 bit: 0 and 1
    (gray(values(1, 2, 3)), 'a.png', ['count its 3 classes from 1', 'reduce_zero_label=True']),
    (gray(values(0, 1, 2, 3, 255)), 'a.png', ['count its 3 classes from 1']),
    (gray(values(0, 100, 200)), 'a.png', ['gray levels (values 0, 100, 200)', '--map']),
    (gray(values(0, 1, 2, 6, 8)), 'a.png', ['Are all classes named in `classes`?', 'values 0, 1, 2, 6, 8']),
    (gray(NOISE), 'a.png', ['256 gray levels', 'is seg_map_path the folder of masks?']),
    (gray(np.dstack([values(0, 9)] * 3)), 'a.png', ['gray mask stored with three channels', '--map']),
    (gray(np.dstack([values(0, 9), values(5, 7), values(3, 1)])), 'a.png', ['RGB-coded, 2 colors such as (0, 5, 3)']),
    (gray(np.dstack([values(0, 9), values(5, 7), values(3, 1), values(255)])), 'a.png', ['RGB-coded, 2 colors']),
    (gray(RNG.integers(0, 256, (30, 30, 3), dtype=np.uint8)), 'a.png', ['900 colors', 'folder of masks?']),
    (palette(values(0, 7)), 'a.png', ['palette picture whose indices (values 0, 7)', '--map classes.txt']),
    (gray(values(0, 1000, dtype=np.uint16)), 'a.png', ['more than 8 bits (values 0, 1000)']),
    (gray(values(0, 0.5, dtype=np.float32)), 'a.tif', ['binary mask (0 and 0.5)', '--binary']),
    (gray(values(0, 0.5, 1, dtype=np.float32)), 'a.tif', ['fractions (values 0.0, 0.5, 1.0)', 'save the masks as PNG']),
    (gray(values(0, 1, 2, dtype=np.float32)), 'a.tif', []),
    (gray(NOISE), 'a.jpg', ['It is a JPEG', '--map']),
    (gray(values(0, 1, 2, 255)), 'a.png', []),
])
def test_kinds(tmp_path, picture, name, expected):
    path = tmp_path / name
    picture.save(path)
    hint = mask_hint(str(path), num_classes=3)
    assert bool(hint) == bool(expected)
    assert all(part in hint for part in expected), hint
    if '--' in hint:
        assert f'convert_masks.py {tmp_path} {tmp_path}_indices --' in hint


def test_files_that_cannot_be_read_get_no_hint(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\nnothing')
    assert mask_hint(str(tmp_path / 'a.png'), 3) == mask_hint(str(tmp_path / 'none.png'), 3) == ''


def test_the_command_can_be_pasted():
    assert convert_command(mask_place('my masks/a.png'), '--binary') == (
        "python tools/dataset_converters/convert_masks.py 'my masks' 'my masks_indices' --binary")
    assert convert_command(mask_place('a.png')).endswith('convert_masks.py . ._indices')


def test_check_seg_map_tells_the_kind(tmp_path):
    path = str(tmp_path / 'a.png')
    gray(values(0, 128)).save(path)
    check = CheckSegMap(num_classes=2)
    results = dict(seg_map_path=path, img_path='a.jpg', ori_shape=(6, 8), gt_seg_map=values(0, 128))
    with pytest.raises(ValueError, match=r'a.png holds labels \[128\]; expected 0..1 or 255 \(ignore\). It seems to be '
                                         r'a binary mask \(0 and 128\): `python tools/.*/convert_masks.py'):
        check(results)
    colors = np.dstack([values(0, 9), values(5, 7), values(3, 1)])
    gray(colors).save(path)
    with pytest.raises(ValueError, match=r'a.png is \(6, 8, 3\); expected .* RGB-coded, 2 colors'):
        check(dict(results, gt_seg_map=colors))


def test_check_any_class_stops_early(tmp_path):
    paths = [str(tmp_path / f'{i}.png') for i in range(3)]
    gray(values(0, 255)).save(paths[0])
    gray(values(0, 1)).save(paths[1])
    check_any_class([*paths, 'none'], 255, Place('m'))  # the third does not exist: it is never opened
    gray(values(0, 255)).save(paths[1])
    with pytest.raises(ValueError, match='none of the 2 masks below m'):
        check_any_class(paths[:2], 255, Place('m'))
    check_any_class(paths[:2], 254, Place('m'))
    with pytest.raises(ValueError, match='none of the 2 masks below m shows a class at all: with reduce_zero_label.*'
                                         '--binary.*leave reduce_zero_label out'):
        check_any_class(paths[:2], 255, Place('m'), reduce_zero_label=True)


@pytest.mark.parametrize('values, hint', [
    ((0, 65535), 'binary mask of 16 bits .0 and 65535.*convert_masks.py .* --binary'),
    ((0, 256, 512), 'more than 8 bits .*convert_masks.py .* --map'),
])
def test_masks_of_16_bits_are_not_cut_without_a_word(tmp_path, values, hint):
    mask = np.resize(np.array(values, np.uint16), (8, 8))
    Image.fromarray(mask).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=f'a.png holds values outside 0 to 255.*{hint}'):
        loaded(tmp_path / 'a.png')
    Image.fromarray((mask > 0).astype(np.uint16)).save(tmp_path / 'a.png')  # as good as 8 bits
    assert loaded(tmp_path / 'a.png').max() == 1


def test_fractions_are_not_cut_without_a_word(tmp_path):
    for values, fine in (((0, 0.5), False), ((0, 0.5, 1), False), ((0, 1), True)):
        Image.fromarray(np.resize(np.array(values, np.float32), (8, 8))).save(tmp_path / 'a.tif')
        if fine:
            assert loaded(tmp_path / 'a.tif').max() == 1
            continue
        with pytest.raises(ValueError, match='a.tif holds values that are no whole numbers; expected 0..1'):
            loaded(tmp_path / 'a.tif')


def loaded(path):
    """The mask as a pipeline reads it."""
    results = dict(seg_map_path=str(path), reduce_zero_label=False, label_map=None, seg_fields=[], img_path='a.jpg',
                   ori_shape=(8, 8))
    return CheckSegMap(num_classes=2)(LoadAnnotations()(results))['gt_seg_map']


def test_an_alpha_channel_is_named(tmp_path):
    Image.fromarray(np.zeros((8, 8, 2), np.uint8), 'LA').save(tmp_path / 'a.png')
    assert 'alpha channel: `python tools/dataset_converters/convert_masks.py' in mask_hint(str(tmp_path / 'a.png'), 2)


@pytest.mark.parametrize('mask, image, folder, expected', [
    ('l/masks/day/a.png', 'l/images/day/a.jpg', '', 'l/masks l/masks_indices'),
    ('l/masks/day/a.png', 'other/b.jpg', 'l/masks', 'l/masks l/masks_indices'),
    ('l/masks/day/a.png', '', '', 'l/masks/day l/masks/day_indices'),
    ('d/a.png', 'd/a.jpg', '', 'd d_indices --suffix .png'),
    ('d/x/a_mask.png', 'd/x/a.jpg', 'd', 'd d_indices --suffix _mask.png'),
])
def test_the_command_names_the_folder_of_all_masks(mask, image, folder, expected):
    command = convert_command(mask_place(mask, image, folder), '--binary')
    assert command.endswith(f'convert_masks.py {expected} --binary')


def test_nested_masks_are_converted_from_their_root(tmp_path):
    for name in ('images/day/a.jpg', 'masks/day/a.png'):
        (tmp_path / name).parent.mkdir(parents=True)
        gray(values(0, 128)).save(tmp_path / name)
    found = FolderDataset(data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckSegMap', num_classes=2)])
    with pytest.raises(ValueError, match=f'convert_masks.py {tmp_path}/masks {tmp_path}/masks_indices --binary'):
        found[0]


def test_pictures_of_any_size_are_read(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    importlib.reload(mmseg_semi.datasets)
    assert Image.MAX_IMAGE_PIXELS is None
