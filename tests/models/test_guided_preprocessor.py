import copy

import pytest
import torch

from mmseg_semi.registry import MODELS


@pytest.fixture
def preprocessor(tiny_cfg):
    return MODELS.build(dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor'))


def test_images_guides_and_masks_stay_together(preprocessor, make_guided_batch):
    batch = make_guided_batch(n_l=2, n_u=3, classes=(1, -1))
    data = preprocessor(copy.deepcopy(batch), True)
    inputs, samples = data['inputs'], data['data_samples']
    assert inputs.labeled.shape == (4, 3, 33, 33) and inputs.weak.shape == inputs.guide.shape == (3, 3, 33, 33)
    assert inputs.pair_class.tolist() == [1, -1] and inputs.guide_class.tolist() == [1, -1, 1]
    assert len(samples) == 4 and all(sample.gt_sem_seg.data.shape == (1, 33, 33) for sample in samples)
    labeled, unlabeled = batch['labeled'], batch['unlabeled']
    masks = [s.gt_sem_seg for s in labeled['data_samples']] + [s.guide.gt_sem_seg for s in labeled['data_samples']]
    images = labeled['inputs'] + [s.guide.inputs for s in labeled['data_samples']]
    pairs = list(zip(inputs.labeled, [s.gt_sem_seg.data[0] for s in samples], images, masks, strict=True))
    pairs += list(zip(inputs.weak, inputs.pseudo_label, unlabeled['inputs'],
                      [s.pseudo_sem_seg for s in unlabeled['data_samples']], strict=True))
    pairs += list(zip(inputs.guide, inputs.guide_label, [s.guide.inputs for s in unlabeled['data_samples']],
                      [s.guide.gt_sem_seg for s in unlabeled['data_samples']], strict=True))
    assert len(pairs) == 10
    for image, label, file, mask in pairs:
        height, width = file.shape[1:]
        torch.testing.assert_close(image[:, :height, :width], file.flip(0) / 255)
        assert torch.equal(label[:height, :width], mask.data[0])
        assert (label[:, width:] == 255).all() and (label[height:] == 255).all()
        torch.testing.assert_close(image[:, :, width:], torch.full_like(image[:, :, width:], 127 / 255))
    assert [int(valid.sum()) for valid in inputs.valid] == [image[0].numel() for image in unlabeled['inputs']]


def test_samples_are_read_only(preprocessor, make_guided_batch):
    batch = make_guided_batch()
    preprocessor(batch, True)
    for group in batch.values():
        for image, sample in zip(group['inputs'], group['data_samples'], strict=True):
            mask = sample.gt_sem_seg if 'gt_sem_seg' in sample else sample.pseudo_sem_seg
            assert mask.data.shape[1:] == image.shape[1:] and 'guide' in sample
            assert sample.guide.gt_sem_seg.data.shape[1:] == sample.guide.inputs.shape[1:]


def test_what_a_stage_lacks_is_none(preprocessor, make_guided_batch):
    pairs = preprocessor(make_guided_batch(n_u=0), True)['inputs']
    assert all(getattr(pairs, name) is None for name in ('weak', 'valid', 'guide', 'guide_class', 'pseudo_label'))
    rectify = preprocessor(make_guided_batch(pairs=False), True)['inputs']
    assert rectify.pair_class is None and rectify.labeled.shape == (2, 3, 33, 33)
    online = preprocessor(make_guided_batch(pseudo=False), True)['inputs']
    assert online.pseudo_label is None and online.guide_label.shape == (2, 33, 33)


def test_plain_batches_pass_as_in_mmseg(preprocessor, tiny_cfg):
    plain = MODELS.build(dict(tiny_cfg.data_preprocessor, type='SegDataPreProcessor'))
    batch = dict(inputs=[torch.randint(256, (3, 33, 33), dtype=torch.uint8)], data_samples=None)
    assert torch.equal(preprocessor(batch)['inputs'], plain(batch)['inputs'])


def test_mistakes(preprocessor, make_guided_batch, tiny_cfg):
    batch = make_guided_batch()
    del batch['labeled']['data_samples'][1].guide
    with pytest.raises(ValueError, match='1 of 2 labeled images have guides; expected all or none'):
        preprocessor(batch, True)
    with pytest.raises(ValueError, match='the batch holds no labeled image'):
        preprocessor(make_guided_batch(n_l=0), True)
    cfg = dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor')
    with pytest.raises(ValueError, match=r'size must be the crop \(H, W\).*found None'):
        MODELS.build(dict(cfg, size=None))
    with pytest.raises(ValueError, match='seg_pad_val must be 255, found 0'):
        MODELS.build(dict(cfg, seg_pad_val=0))
