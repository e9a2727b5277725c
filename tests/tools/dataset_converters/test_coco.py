"""COCO 2017 in the layout of its archives: polygons, crowds, order, labels."""
import json
import re

import numpy as np
import pytest

SIZE = (30, 40)
COUNTS = dict(train2017=2, val2017=1)
IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})  # the official 80


def box(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def thing(number, image, category, segmentation, area, crowd=0):
    return dict(id=number, image_id=image, category_id=category, segmentation=segmentation, area=area, iscrowd=crowd)


def run_lengths(mask):
    """Uncompressed run lengths down the columns, zeros first, as crowds are stored."""
    flat, counts = mask.T.ravel(), []
    for run in np.split(flat, np.flatnonzero(np.diff(flat)) + 1):
        if not counts and run[0] == 1:
            counts.append(0)
        counts.append(len(run))
    return dict(size=list(mask.shape), counts=counts)


CROWD = np.zeros(SIZE, np.uint8)
CROWD[20:, :35] = 1


@pytest.fixture
def annotations():
    """The small object is listed first and lies on the large one; the crowd is larger than the person in it."""
    categories = [dict(id=i, name=f'thing {i}', supercategory='x') for i in IDS]
    images = [dict(id=9, file_name='000000000009.jpg', height=30, width=40),
              dict(id=25, file_name='000000000025.jpg', height=30, width=40)]
    things = [thing(1, 9, 44, box(10, 5, 14, 9), 16.0), thing(2, 9, 90, box(2.4, 2.6, 30.4, 18.6), 448.0),
              thing(3, 9, 1, box(5, 22, 9, 28), 24.0), thing(4, 9, 1, run_lengths(CROWD), 350.0, crowd=1),
              thing(5, 9, 3, box(0, 25, 3, 30) + box(36, 0, 50, 4), 31.0)]
    return dict(train2017=dict(info={}, images=images, annotations=things, categories=categories),
                val2017=dict(info={}, images=[dict(id=139, file_name='000000000139.jpg', height=30, width=40)],
                             annotations=[thing(7, 139, 13, box(0, 0, 40, 30), 1200)], categories=categories))


def expected():
    labels = np.zeros(SIZE, np.uint8)
    labels[3:19, 2:30] = 80  # centers x.5 of 2.4..30.4 and 2.6..18.6
    labels[20:, :35] = 1
    labels[25:30, 0:3] = labels[0:4, 36:40] = 3
    labels[22:28, 5:9] = 1
    labels[5:9, 10:14] = 1 + IDS.index(44)
    return labels


@pytest.fixture
def files(kit, annotations):
    rng = np.random.default_rng(0)
    files = {f'{part}/{image["file_name"]}': kit.photo(rng, *SIZE)
             for part, content in annotations.items() for image in content['images']}
    files.update({f'annotations/instances_{part}.json': json.dumps(content).encode()
                  for part, content in annotations.items()})
    return {**files, 'annotations/captions_val2017.json': b'{}'}


@pytest.fixture
def tool(load):
    return load('coco', COUNTS)


def test_from_the_archives(tool, run, kit, files, tmp_path):
    archives = [kit.write_zip(tmp_path / f'{name}.zip', {k: v for k, v in files.items() if k.startswith(name)})
                for name in ('train2017', 'val2017', 'annotations')]
    out = tmp_path / 'out'
    status, printed, err = run(tool, *archives, '--out', out)
    assert status == 0, err
    assert (kit.labels(out / 'masks/train2017/000000000009.png') == expected()).all()
    assert (kit.labels(out / 'masks/train2017/000000000025.png') == 0).all()  # an image without objects
    assert (kit.labels(out / 'masks/val2017/000000000139.png') == 1 + IDS.index(13)).all()
    assert not (out / 'annotations/captions_val2017.json').exists()
    pixels = json.loads((out / 'coco.json').read_text())['parts']['train2017']['pixels']
    assert len(pixels) == 82 and pixels['thing 44'] == 16 and pixels['(ignored)'] == 0
    status, printed, err = run(tool, *archives, '--out', out, workers=2)
    assert status == 0 and 'train2017: 2 masks (2 kept)' in printed


def test_from_a_folder(tool, run, kit, files, tmp_path):
    root, out = kit.write_folder(tmp_path / 'coco', files), tmp_path / 'out'
    assert run(tool, root, '--out', out)[0] == 0 and not (root / 'masks').exists()
    assert (out / 'val2017/000000000139.jpg').is_file()
    assert run(tool, tmp_path)[0] == 0
    assert (root / 'coco.json').read_bytes() == (out / 'coco.json').read_bytes()


def test_labels_are_in_the_order_of_the_ids(tool, annotations, kit, files, tmp_path):
    """Categories may stand in any order in the file."""
    annotations['train2017']['categories'].reverse()
    files['annotations/instances_train2017.json'] = json.dumps(annotations['train2017']).encode()
    root = kit.write_folder(tmp_path, files)
    items, names = tool.plan(root, root, 'train2017')
    assert names == [f'thing {i}' for i in IDS]
    assert [label for label, _ in items[0].objects] == [80, 1, 3, 1, 1 + IDS.index(44)]


def test_a_polygon_has_the_pixels_whose_centers_it_holds(tool):
    """Against a test of each center on its own; outlines leave the image, cross themselves and have flat edges."""
    from matplotlib.path import Path as Outline
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]] + 0.5
    centers = np.stack([columns.ravel(), rows.ravel()], 1)
    for corners in (3, 4, 7, 40):
        for _ in range(20):
            angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
            reach = rng.uniform(2, 25, corners)[:, None]
            points = rng.uniform(0, 40, 2) + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
            canvas = np.zeros(SIZE, np.uint8)
            tool.fill(canvas, 5, points.ravel().tolist())
            inside = Outline(np.concatenate([points, points[:1]]), closed=True).contains_points(centers).reshape(SIZE)
            if np.all(np.diff(angle) < np.pi) and angle[0] + 2 * np.pi - angle[-1] < np.pi:  # matplotlib: nonzero rule
                assert (canvas == 5 * inside).all()
    star = np.zeros((40, 40), np.uint8)  # even-odd: the middle of a pentagram is outside
    tool.fill(star, 1, [20, 1, 31, 35, 2, 14, 38, 14, 9, 35])
    assert star[20, 20] == 0 and star[8, 20] == 1
    outside = np.zeros(SIZE, np.uint8)
    tool.fill(outside, 1, [-9, -9, -2, -9, -2, -2])
    assert not outside.any()


@pytest.mark.parametrize('change, message', [
    (lambda files, a: files.pop('train2017/000000000025.jpg'), '1 of 2 images missing.*cocodataset.org'),
    (lambda files, a: files.pop('annotations/instances_val2017.json'), '1 of 1 annotations missing'),
    (lambda files, a: a['val2017']['images'].clear(), r'val2017 0 .expected 1.'),
    (lambda files, a: a['val2017']['categories'].pop(), 'has 79 categories, expected 80'),
    (lambda files, a: a['val2017']['images'][0].update(height=31), r'000000000139.png is \(31, 40\), its image'),
    (lambda files, a: a['val2017']['annotations'].append(thing(8, 139, 1, dict(size=[3, 4], counts='Pb0'), 1)),
     'annotations of 000000000139.jpg cannot be painted: run lengths'),
    (lambda files, a: a['val2017']['annotations'].append(thing(8, 139, 12, [], 1)), 'no file of instances .KeyError'),
])
def test_mistakes(tool, run, kit, annotations, files, tmp_path, change, message):
    change(files, annotations)
    for part, content in annotations.items():
        if f'annotations/instances_{part}.json' in files:
            files[f'annotations/instances_{part}.json'] = json.dumps(content).encode()
    status, _, err = run(tool, kit.write_folder(tmp_path, files))
    assert status == 2 and re.search(message, err.splitlines()[-1]), err
