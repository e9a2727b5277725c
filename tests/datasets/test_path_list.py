import copy
import pickle

import numpy as np

from mmseg_semi.datasets.path_list import PathList

NAMES = ['a.jpg', 'x/ü b.png', 'x/\udcff.jpg', 'c.tif']  # the third is no valid UTF-8 on disk


def paths(records):
    return [record['img_path'] for record in records]


def test_records():
    names = PathList('/root', NAMES)
    assert len(names) == 4 and paths(names) == [f'/root/{name}' for name in NAMES]
    assert names[-1] == dict(img_path='/root/c.tif', seg_fields=[])
    names[0]['seg_fields'].append('gt')
    assert names[0]['seg_fields'] == []  # made anew
    assert len(PathList('', [])) == 0


def test_parts_share_the_names():
    names = PathList('r', NAMES)
    part = names[1:3]
    assert paths(part) == ['r/x/ü b.png', 'r/x/\udcff.jpg'] and part.buffer is names.buffer
    assert paths(names.take(np.array([3, 0, 3]))) == ['r/c.tif', 'r/a.jpg', 'r/c.tif']


def test_a_pickle_is_small():
    names = PathList('r', [f'folder/{i:06}.jpg' for i in range(10000)])
    for other in (pickle.loads(pickle.dumps(names)), copy.deepcopy(names)):
        assert paths(other[::999]) == paths(names[::999])
    assert len(pickle.dumps(names)) < 10000 * (18 + 16) + 1000
