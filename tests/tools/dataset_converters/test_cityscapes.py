"""Cityscapes in the layout of its archives: 34 ids become 19, polygons give the same as ids."""
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

SIZE = (32, 64)
FRAMES = dict(train=['aachen/aachen_000000_000019', 'aachen/aachen_000001_000019', 'bochum/bochum_000000_000313'],
              val=['munster/munster_000000_000019'])
COUNTS = dict(train=3, val=1)
# Official ids of the classes, in the order of their trainIds.
IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


@pytest.fixture
def tool(load):
    return load('cityscapes', COUNTS)


def polygons(tool, seed):
    rng = np.random.default_rng(seed)
    names = [*tool.LABELS, 'cargroup', 'license plate', 'persongroup']
    objects = [dict(label=name, polygon=rng.integers([0, 0], SIZE[::-1], (4, 2)).tolist())
               for name in rng.permutation(names)]
    objects.append(dict(label='car', deleted=1, polygon=[[0, 0], [63, 0], [63, 31], [0, 31]]))
    return dict(imgHeight=SIZE[0], imgWidth=SIZE[1], objects=objects)


def draw_ids(tool, annotation):
    """labelIds as the official scripts draw them: the background is id 0; groups are their class, plates are not."""
    canvas = Image.new('L', (annotation['imgWidth'], annotation['imgHeight']), 0)
    for thing in annotation['objects']:
        name = {'cargroup': 'car', 'persongroup': 'person'}.get(thing['label'], thing['label'])
        if name in tool.LABELS and not thing.get('deleted'):
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in thing['polygon']], fill=tool.LABELS.index(name))
    return np.array(canvas)


@pytest.fixture
def files(tool, kit):
    rng, files = np.random.default_rng(0), {}
    for part, frames in {**FRAMES, 'test': ['berlin/berlin_000000_000019']}.items():
        for seed, frame in enumerate(frames):
            annotation = polygons(tool, seed)
            files[f'leftImg8bit/{part}/{frame}_leftImg8bit.png'] = kit.photo(rng, *SIZE, form='PNG')
            files[f'gtFine/{part}/{frame}_gtFine_labelIds.png'] = kit.encode(draw_ids(tool, annotation))
            files[f'gtFine/{part}/{frame}_gtFine_polygons.json'] = json.dumps(annotation).encode()
            files[f'gtFine/{part}/{frame}_gtFine_color.png'] = kit.photo(rng, *SIZE, form='PNG')
    return files


@pytest.fixture
def archives(kit, files, tmp_path):
    return [kit.write_zip(tmp_path / f'{folder}_trainvaltest.zip',
                          {'README': b'', 'license.txt': b'',
                           **{name: content for name, content in files.items() if name.startswith(folder)}})
            for folder in ('leftImg8bit', 'gtFine')]


def masks(kit, out):
    return {path.name: kit.labels(path) for path in sorted(out.rglob('*_labelTrainIds.png'))}


def test_the_table(tool):
    assert [int(tool.TRAIN_IDS[i]) for i in IDS] == list(range(19))
    assert (tool.TRAIN_IDS == 255).sum() == 34 - 19 and len(tool.TRAIN_IDS) == 34
    from mmseg.datasets import CityscapesDataset
    assert tool.CLASSES == CityscapesDataset.METAINFO['classes']


def test_from_the_archives(tool, run, kit, archives, files, tmp_path):
    out = tmp_path / 'out'
    status, printed, err = run(tool, *archives, '--out', out)
    assert status == 0, err
    found = masks(kit, out)
    assert len(found) == 4 and not (out / 'leftImg8bit/test').exists() and not list(out.rglob('*_color.png'))
    table = {label: train_id for train_id, label in enumerate(IDS)}
    for seed, frame in enumerate(FRAMES['train']):
        ids = draw_ids(tool, polygons(tool, seed))
        expected = np.vectorize(lambda label: table.get(label, 255))(ids)
        assert (found[f'{frame.split("/")[1]}_gtFine_labelTrainIds.png'] == expected).all()
    assert 'train: 3 masks (3 written)' in printed
    status, printed, err = run(tool, *archives, '--out', out, workers=2)
    assert status == 0 and 'train: 3 masks (3 kept)' in printed


def test_polygons_give_the_same(tool, run, kit, files, tmp_path):
    few = {name: content for name, content in files.items() if 'labelIds' not in name}
    for folder, content in [('a', files), ('b', few)]:
        status, _, err = run(tool, kit.write_folder(tmp_path / folder, content))
        assert status == 0, err
    assert (tmp_path / 'a/cityscapes.json').read_bytes() == (tmp_path / 'b/cityscapes.json').read_bytes()


def test_beside_a_folder_that_cannot_be_written(tool, run, kit, files, tmp_path):
    root, out = kit.write_folder(tmp_path / 'cityscapes', files), tmp_path / 'out'
    before = sorted(root.rglob('*'))
    assert run(tool, root, '--out', out)[0] == 0
    assert sorted(root.rglob('*')) == before and len(masks(kit, out)) == 4
    from mmseg.datasets import CityscapesDataset
    data = CityscapesDataset(data_root=str(out), data_prefix=dict(
        img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=[dict(type='LoadAnnotations'), dict(type='LoadImageFromFile')])
    assert len(data) == 3 and all(sample['gt_seg_map'].shape == SIZE for sample in data)


@pytest.mark.parametrize('name, content, message', [
    ('leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png', None, r'val 0 .expected 1.*cityscapes-dataset'),
    ('gtFine/val/munster/munster_000000_000019_gtFine_polygons.json', None, '1 of 4 annotations missing.*polygons'),
    ('gtFine/val/munster/munster_000000_000019_gtFine_polygons.json', b'{"objects": []}', 'no annotation of Citys'),
    ('gtFine/val/munster/munster_000000_000019_gtFine_polygons.json',
     b'{"imgHeight": 32, "imgWidth": 64, "objects": [{"label": "cow", "polygon": []}]}', "unknown label 'cow'"),
    ('gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png', 'labels of 40', r'labels \[40\]; expected 0..33'),
])
def test_mistakes(tool, run, kit, files, tmp_path, name, content, message):
    files.pop('gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png')
    files[name] = kit.encode(np.full(SIZE, 40, np.uint8)) if content == 'labels of 40' else content
    if content is None:
        del files[name]
    root = kit.write_folder(tmp_path / 'data', {k: v for k, v in files.items() if v is not None})
    (root / 'leftImg8bit/val').mkdir(exist_ok=True)
    status, _, err = run(tool, root)
    assert status == 2
    assert re.search(message, err.splitlines()[-1]), err
