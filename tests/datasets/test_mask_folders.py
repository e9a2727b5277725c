"""Which folders of a pool hold masks, by what convert_masks.py left there."""
import json

import pytest

from mmseg_semi.datasets import UnlabeledDataset
from mmseg_semi.datasets.mask_folders import SETTINGS, stamped_folders


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')
    return names


def test_both_sides_of_a_conversion(tmp_path):
    names = fill(tmp_path, 'photos/a.jpg', 'photos/deep/b.jpg', 'masks/a.png', 'masks_indices/day/a.png')
    assert not stamped_folders(names, str(tmp_path), [])
    (tmp_path / 'masks_indices' / SETTINGS).write_text(json.dumps(dict(source='../masks')))
    expected = {(f'{tmp_path}/masks/', ''), (f'{tmp_path}/masks_indices/', '')}
    assert stamped_folders(names, str(tmp_path), []) == expected  # found in a folder above the masks
    assert stamped_folders(names[:1], str(tmp_path), [str(tmp_path / 'masks_indices')]) == expected
    (tmp_path / 'masks_indices' / SETTINGS).write_text(json.dumps(dict(source='../photos', suffix='_mask.png')))
    assert (f'{tmp_path}/photos/', '_mask.png') in stamped_folders(names, str(tmp_path), [])
    assert len(UnlabeledDataset(data_prefix=dict(img_path=str(tmp_path)))) == 3  # masks/a.png is no mask then


@pytest.mark.parametrize('content', ['', 'no json', '[]', '7', '{}', '{"suffix": ".png"}'])
def test_a_file_of_that_name_that_somebody_else_wrote(tmp_path, content):
    names = fill(tmp_path, 'a.jpg')
    (tmp_path / SETTINGS).write_text(content)
    assert not stamped_folders(names, str(tmp_path), [])
