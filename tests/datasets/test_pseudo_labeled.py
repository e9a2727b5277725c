"""Masks that a model made: which are refused, and what is left when they are skipped."""
import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from mmseg_semi.registry import DATASETS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
CLASSES = ('a', 'b', 'c')


@pytest.fixture
def make(tmp_path):
    """Function that writes images of 6 x 8 with masks of 1 and builds the dataset."""

    def write(count=3, change=None, manifest=False, **kwargs):
        records = []
        for i in range(count):
            image, mask = tmp_path / f'img/d/{i:03}.png', tmp_path / f'masks/d/{i:03}.png'
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(image)
            Image.fromarray(np.full((6, 8), 1, np.uint8)).save(mask)
            records.append(dict(id=f'd/{i:03}', file=f'd/{i:03}.png', size=[6, 8], histogram=[0, 48, 0],
                                sha256=hashlib.sha256(mask.read_bytes()).hexdigest()))
        if manifest:
            (tmp_path / 'masks/manifest.jsonl').write_text(''.join(f'{json.dumps(r)}\n' for r in records))
        if change:
            change(tmp_path / 'masks/d/001.png')
        return DATASETS.build(dict(dict(
            type='PseudoLabeledDataset', data_root=str(tmp_path), data_prefix=dict(img_path='img'), pipeline=PIPELINE,
            mask_dirs=str(tmp_path / 'masks'), metainfo=dict(classes=CLASSES)), **kwargs))

    return write


def save(array, **kwargs):
    return lambda path: Image.fromarray(np.asarray(array, np.uint8), **kwargs).save(path)


BAD = dict(
    missing=(lambda path: path.unlink(), FileNotFoundError, r'no pseudo-label of .*d/001\.png: looked for .*masks'),
    truncated=(lambda path: path.write_bytes(path.read_bytes()[:50]), ValueError, r'cannot read .*masks/d/001\.png'),
    empty=(lambda path: path.write_bytes(b''), ValueError, r'cannot read pseudo-label .*masks/d/001\.png'),
    colors=(save(np.zeros((6, 8, 3))), ValueError, r'001\.png is a PNG of mode RGB; expected class indices, mode P or'),
    size=(save(np.zeros((8, 6))), ValueError, r'001\.png is \(8, 6\), its image .* is \(6, 8\)'),
    label=(save(np.full((6, 8), 3)), ValueError, r'001\.png holds labels \[3\]; expected 0\.\.2 or 255'),
)


@pytest.mark.parametrize('kind', BAD)
@pytest.mark.parametrize('manifest', [False, True])
def test_a_bad_mask_is_an_error(make, kind, manifest):
    change, error, words = BAD[kind]
    with pytest.raises(error, match=words):
        make(change=change, manifest=manifest)


@pytest.mark.parametrize('kind', BAD)
def test_a_few_bad_masks_are_skipped_on_request(make, kind):
    with pytest.raises(ValueError, match='1 of 99 pseudo-labels are bad, more than 1%; label the images again. The '):
        make(99, BAD[kind][0], on_bad_mask='skip')
    dataset = make(100, BAD[kind][0], on_bad_mask='skip')
    assert len(dataset) == 99 and not any('001' in dataset.get_data_info(i)['img_path'] for i in range(99))


def test_good_masks(make):
    for mask in (save(np.full((6, 8), 255)), save([[0, 1, 2, 255] * 2] * 6)):
        assert len(make(change=mask)) == len(make(change=mask, manifest=True)) == 3


def test_unchanged_masks_are_not_decoded(make, monkeypatch):
    decoded = []
    array = np.array

    def count(x, *args, **kwargs):
        if isinstance(x, Image.Image):
            decoded.append(x)
        return array(x, *args, **kwargs)

    monkeypatch.setattr('mmseg_semi.datasets.pseudo_labeled.np.array', count)
    make(manifest=True)
    assert not decoded
    make(change=save(np.zeros((6, 8))), manifest=True)
    assert len(decoded) == 1


def test_the_number_of_classes_may_come_from_the_pipeline(make):
    check = [*PIPELINE[:2], dict(type='CheckSegMap', num_classes=3), PIPELINE[2]]
    with pytest.raises(ValueError, match=re.escape('expected 0..2')):
        make(change=BAD['label'][0], metainfo=None, pipeline=check)
    assert len(make(change=BAD['label'][0], metainfo=None)) == 3  # nobody knows how many there are


def test_photographs_that_are_turned(make, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6

    def turn(path):
        image = tmp_path / 'img/d/001.jpg'
        (tmp_path / 'img/d/001.png').unlink()
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(image, exif=exif)
        save(np.zeros((8, 6)))(path)

    dataset = make(change=turn)
    assert dataset[1]['inputs'].shape == (3, 8, 6)


def test_masks_are_not_reduced(make):
    """ADE20K's pipeline, which CISC-R uses for masks too: 0 is background in its ground truth, a class in masks."""
    pipeline = [PIPELINE[0], dict(type='LoadAnnotations', reduce_zero_label=True), PIPELINE[2]]
    sample = make(pipeline=pipeline)[0]['data_samples']
    assert sample.gt_sem_seg.data.unique().tolist() == [1]


def test_unknown_way(make):
    with pytest.raises(ValueError, match="on_bad_mask must be 'error' or 'skip', found 'drop'"):
        make(on_bad_mask='drop')
