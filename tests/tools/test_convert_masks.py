"""Masks of every kind become class indices, and those that cannot be are refused by name."""
import importlib.util
import json
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / 'tools/dataset_converters/convert_masks.py'
LABEL = np.array([[0, 0, 1, 1], [2, 2, 1, 1], [2, 2, 255, 255]], np.uint8)
COLORS = np.zeros((256, 3), np.uint8)
COLORS[[1, 2, 255]] = [[128, 64, 128], [0, 0, 142], [255, 255, 255]]
MAP = 'background: 0,0,0\n\nroad: 128, 64, 128 # gray purple\ncar: #00008e 0,0,143\nignore: 255,255,255\n'


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOOL.parent)  # as when it is called by its path
    (tmp_path / 'map.txt').write_text(MAP)
    (tmp_path / 'levels.txt').write_text('a: 0\nb: 1 7\nc: 2 300\nignore: 255\n')
    spec = importlib.util.spec_from_file_location('convert_masks', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        code = module.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Namespace(code=code, out=out, err=err)

    return run


def save(path, array, palette=None, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(palette.flatten().tolist())
    picture.save(path, **kwargs)


def read(path):
    with Image.open(path) as picture:
        assert picture.mode == 'P'
        return np.asarray(picture)


def test_colors(call, tmp_path):
    save(tmp_path / 'in/day one/rgb.png', COLORS[LABEL])
    save(tmp_path / 'in/alpha.tif', np.dstack([COLORS[LABEL], np.full(LABEL.shape, 255, np.uint8)]))
    swapped = np.where(LABEL == 1, 9, LABEL).astype(np.uint8)  # a palette with other indices and the same colors
    palette = COLORS.copy()
    palette[9] = COLORS[1]
    save(tmp_path / 'in/palette.png', swapped, palette)
    done = call('in', 'out', '--map', 'map.txt')
    assert done.code == 0, done.err
    assert "classes=('background', 'road', 'car')" in done.out and '3/3' in done.err
    for name in ('day one/rgb', 'alpha', 'palette'):
        assert (read(tmp_path / f'out/{name}.png') == LABEL).all(), name
    with Image.open(tmp_path / 'out/alpha.png') as picture:
        assert picture.getpalette()[3:6] == [128, 64, 128]
    again = call('in', 'out', '--map', 'map.txt')
    assert again.code == 0 and '3 of 3 masks were converted before' in again.out
    (tmp_path / 'map.txt').write_text(MAP.replace('road', 'street').replace('0,0,143', '0,0,144'))
    other = call('in', 'out', '--map', 'map.txt')
    assert other.code == 2 and 'with another map' in other.err


def test_levels(call, tmp_path):
    save(tmp_path / 'in/gray.png', LABEL)
    save(tmp_path / 'in/stored as color.png', np.dstack([LABEL] * 3))
    save(tmp_path / 'in/palette.png', LABEL, COLORS)
    wide = LABEL.astype(np.uint16)
    wide[LABEL == 2], wide[LABEL == 1] = 300, 7
    save(tmp_path / 'in/sixteen.png', wide)
    assert call('in', 'out', '--map', 'levels.txt').code == 0
    for path in (tmp_path / 'in').iterdir():
        assert (read(tmp_path / 'out' / path.name) == LABEL).all(), path


def test_binary(call, tmp_path):
    foreground = (LABEL == 1).astype(np.uint8)
    save(tmp_path / 'in/a.png', 255 * foreground)
    save(tmp_path / 'in/empty.png', 0 * foreground)
    done = call('in', 'out', '--binary')
    assert done.code == 0 and (read(tmp_path / 'out/a.png') == foreground).all()
    assert not read(tmp_path / 'out/empty.png').any()
    Image.fromarray(foreground.astype(bool)).save(tmp_path / 'in/bits.png')
    assert Image.open(tmp_path / 'in/bits.png').mode == '1'
    done = call('in', 'out2', '--binary')
    assert done.code == 2 and 'found [1, 255]' in done.err  # 1 here, 255 there: one of them is no mask of this kind
    save(tmp_path / 'gray/c.png', 100 * foreground + 50)
    assert 'found [50, 150]' in call('gray', 'out3', '--binary').err
    rows = np.zeros((16, 16), np.uint8)
    rows[8:] = 255
    save(tmp_path / 'jpeg/a.jpg', rows)
    assert 'a JPEG invents values' in call('jpeg', 'out4', '--binary').err
    assert call('jpeg', 'out5', '--binary', '--threshold', 128).code == 0
    assert (read(tmp_path / 'out5/a.png') == (rows > 0)).all()


def test_tiff_of_floats(call, tmp_path):
    """As annotation tools of science write them: 0 and one other value, or whole numbers."""
    save(tmp_path / 'half/a.tif', np.resize(np.array([0, 0.5], np.float32), (4, 4)))
    assert call('half', 'out', '--binary').code == 0
    assert np.unique(read(tmp_path / 'out/a.png')).tolist() == [0, 1]
    done = call('half', 'other', '--map', 'levels.txt')
    assert done.code == 2 and 'a.tif: holds fractions; a map has whole numbers, --binary takes' in done.err
    save(tmp_path / 'whole/a.tif', np.resize(np.array([0, 7, 300], np.float32), (4, 4)))
    assert call('whole', 'third', '--map', 'levels.txt').code == 0
    assert np.unique(read(tmp_path / 'third/a.png')).tolist() == [0, 1, 2]


def test_unknown_values(call, tmp_path):
    save(tmp_path / 'in/a.png', np.where(LABEL[..., None] == 2, [1, 2, 3], COLORS[LABEL]).astype(np.uint8))
    done = call('in', 'out', '--map', 'map.txt')
    assert done.code == 2 and re.search(r'in/a.png: 1,2,3 \(4 pixels\) in no class', done.err)
    assert not list((tmp_path / 'out').rglob('*.png*'))
    done = call('in', 'out2', '--map', 'map.txt', '--unknown', 'ignore')
    assert done.code == 0 and (read(tmp_path / 'out2/a.png') == np.where(LABEL == 2, 255, LABEL)).all()
    assert 'never seen' in done.out
    clear = np.dstack([COLORS[LABEL], np.where(LABEL == 1, 0, 255).astype(np.uint8)])
    save(tmp_path / 'clear/a.png', clear)
    assert 'transparent (4 pixels)' in call('clear', 'out3', '--map', 'map.txt').err


def test_list_prints_a_map_that_works(call, tmp_path):
    save(tmp_path / 'in/a.png', COLORS[LABEL])
    done = call('in', '--list')
    assert done.code == 0 and '128,64,128  # 33.333% of the pixels, in 1 masks' in done.out
    (tmp_path / 'listed.txt').write_text(done.out)
    assert call('in', 'out', '--map', 'listed.txt').code == 0
    assert len(np.unique(read(tmp_path / 'out/a.png'))) == 4


@pytest.mark.parametrize('line, told', [
    ('road', 'expected `name: value'), ('road: 1,2', "'1,2' is neither"), ('road: 300,0,0', 'neither'),
    ('road: 70000', 'neither'), ('road: x', 'neither'), ('other: 0,0,0', 'another class already'),
    ('level: 5', 'colors and single numbers')])
def test_broken_maps(call, tmp_path, line, told):
    save(tmp_path / 'in/a.png', COLORS[LABEL])
    (tmp_path / 'map.txt').write_text(f'{MAP}{line}\n')
    done = call('in', 'out', '--map', 'map.txt')
    assert done.code == 2 and told in done.err and not (tmp_path / 'out').exists()


def test_broken_input(call, tmp_path):
    assert 'folder of masks not found: in' in call('in', 'out', '--binary').err
    (tmp_path / 'in').mkdir()
    assert 'no mask in in' in call('in', 'out', '--binary').err
    save(tmp_path / 'in/a.png', LABEL)
    assert 'must lie outside' in call('in', 'in', '--binary').err
    assert 'must lie outside' in call('in', 'in/out', '--binary').err
    assert 'file not found: none.txt' in call('in', 'out', '--map', 'none.txt').err
    assert 'holds colors' not in call('in', 'out', '--map', 'levels.txt').err
    save(tmp_path / 'rgb/a.png', COLORS[LABEL])
    assert 'holds colors, but the map has single numbers' in call('rgb', 'out1', '--map', 'levels.txt').err
    save(tmp_path / 'in/a.bmp', LABEL)
    assert 'a.bmp and a.png would both become a.png' in call('in', 'out2', '--binary').err
    whole = (tmp_path / 'in/a.png').read_bytes()
    (tmp_path / 'cut').mkdir()
    (tmp_path / 'cut/a.png').write_bytes(whole[:-30])
    assert re.search('cut/a.png: cannot be read', call('cut', 'out3', '--binary').err)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('x')
    assert 'not made by this tool' in call('rgb', 'mine', '--map', 'map.txt').err
    frames = [Image.fromarray(LABEL), Image.fromarray(LABEL)]
    (tmp_path / 'two').mkdir()
    frames[0].save(tmp_path / 'two/a.tif', save_all=True, append_images=frames[1:])
    assert 'holds 2 pictures' in call('two', 'out4', '--binary').err


def test_an_interrupted_run_goes_on(call, tmp_path):
    for i in range(4):
        save(tmp_path / f'in/{i}.png', COLORS[LABEL])
    (tmp_path / 'in/3.png').write_bytes(b'')
    assert call('in', 'out', '--map', 'map.txt', '--jobs', 1).code == 2
    done = sorted(path.name for path in (tmp_path / 'out').glob('*.png'))
    assert done == ['0.png', '1.png', '2.png'] and not list((tmp_path / 'out').glob('*.part*'))
    save(tmp_path / 'in/3.png', COLORS[LABEL])
    assert '3 of 4 masks were converted before' in call('in', 'out', '--map', 'map.txt').out
    assert json.loads((tmp_path / 'out/.convert_masks.json').read_text())['unknown'] == 'error'


@pytest.mark.parametrize('channels', [2, 4])
def test_transparent_pixels_are_background(call, tmp_path, channels):
    """A brush in white, whose shape is in the alpha channel."""
    brush = np.full((*LABEL.shape, channels), 255, np.uint8)
    brush[..., -1] = np.where(LABEL == 1, 255, 0)
    save(tmp_path / 'in/a.png', brush)
    assert call('in', 'out', '--binary').code == 0
    assert (read(tmp_path / 'out/a.png') == (LABEL == 1)).all()


def test_changed_masks_are_converted_again(call, tmp_path):
    for name in 'ab':
        save(tmp_path / f'in/{name}.png', COLORS[LABEL])
    call('in', 'out', '--map', 'map.txt')
    save(tmp_path / 'in/a.png', COLORS[LABEL[::-1]])
    later = (tmp_path / 'out/a.png').stat().st_mtime + 5
    os.utime(tmp_path / 'in/a.png', (later, later))
    done = call('in', 'out', '--map', 'map.txt')
    assert '1 of 2 masks were converted before; 1 were changed since and are converted again' in done.out
    assert (read(tmp_path / 'out/a.png') == LABEL[::-1]).all() and (read(tmp_path / 'out/b.png') == LABEL).all()


def test_masks_beside_their_images(call, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (*LABEL.shape, 3), dtype=np.uint8)
    for name in ('a.jpg', 'x/b.jpg'):
        save(tmp_path / 'in' / name, photo)
        save((tmp_path / 'in' / name).with_suffix('.png'), COLORS[LABEL])
    told = call('in', 'out', '--map', 'map.txt')
    assert told.code == 2 and 'a.jpg and a.png would both become a.png; if one is an image' in told.err
    assert call('in', 'out', '--map', 'map.txt', '--suffix', '.png').code == 0
    assert (read(tmp_path / 'out/x/b.png') == LABEL).all()
    save(tmp_path / 'other/a.png', photo)
    save(tmp_path / 'other/a_mask.png', COLORS[LABEL])
    assert call('other', 'out2', '--map', 'map.txt', '--suffix', '_mask.png').code == 0
    assert sorted(path.name for path in (tmp_path / 'out2').glob('*.png')) == ['a_mask.png']


def test_linked_folders_and_large_masks(call, tmp_path, monkeypatch):
    save(tmp_path / 'elsewhere/a.png', COLORS[LABEL])
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/day').symlink_to(tmp_path / 'elsewhere')
    assert call('in', 'out', '--map', 'map.txt').code == 0
    assert (read(tmp_path / 'out/day/a.png') == LABEL).all()
    assert Image.MAX_IMAGE_PIXELS is None  # a satellite scene is no bomb


def test_old_masks_do_not_train_as_photographs(call, tmp_path):
    """The hint's command was called, `data.py` names the new folder, and the pool is all of the data."""
    from mmseg_semi.datasets import UnlabeledDataset
    mine = tmp_path / 'mine'
    for name in ('labeled/images/day/a.png', 'more/b.jpg', 'more/masks/c.png'):
        save(mine / name, np.zeros((*LABEL.shape, 3), np.uint8))
    for name in ('labeled/masks/day/a.png', 'more/hand/d.png'):
        save(mine / name, COLORS[LABEL])
    assert call('mine/labeled/masks', 'mine/labeled/masks_indices', '--map', 'map.txt').code == 0
    assert call('mine/more/hand', 'indices', '--map', 'map.txt').code == 0
    labeled = dict(type='FolderDataset', data_root=str(mine), metainfo=dict(classes=('a', 'b', 'c')), data_prefix=dict(
        img_path='labeled/images', seg_map_path='labeled/masks_indices'))
    used = dict(labeled, data_prefix=dict(img_path='more/hand', seg_map_path='../indices'))  # a folder out of the pool

    def pool(**kwargs):
        found = UnlabeledDataset(data_root=str(mine), folders=['.'], pipeline=[], **kwargs)
        return [os.path.relpath(found.get_data_info(i)['img_path'], mine) for i in range(len(found))]

    assert pool() == ['labeled/images/day/a.png', 'more/b.jpg', 'more/hand/d.png', 'more/masks/c.png']
    assert pool(exclude_sets=[labeled, used]) == ['more/b.jpg', 'more/masks/c.png']
    mine.rename(tmp_path / 'moved')
    mine = tmp_path / 'moved'
    assert 'labeled/masks/day/a.png' not in pool()
