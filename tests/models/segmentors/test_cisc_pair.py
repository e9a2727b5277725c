import copy

import pytest
import torch

from mmseg_semi.registry import MODELS


@pytest.fixture
def build(tiny_cfg):
    """Function that builds the tiny network as CISCPair."""

    def make(**options):
        torch.manual_seed(0)
        cfg = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'auxiliary_head', 'test_cfg')}
        cfg.update(data_preprocessor=dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor'))
        model = MODELS.build({'type': 'CISCPair', **copy.deepcopy(cfg), **options})
        model.init_weights()
        return model.train()

    return make


def run(model, batch):
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


@pytest.mark.parametrize('classes', [(1, 2), (-1, 3), (-1, -1)])
def test_a_step_equals_the_specification(build, make_guided_batch, reference, assert_same_step, classes):
    def loss(model, batch):
        images, labels, guides, guide_labels, shared = reference.read(batch['labeled'])
        logits, features = reference.forward(model, torch.cat([images, guides]))
        n = len(images)
        return (reference.supervised([x[:n] for x in logits], labels)
                + reference.supervised([x[n:] for x in logits], guide_labels)
                + reference.consistency(features, torch.cat([labels, guide_labels]), shared))

    losses = assert_same_step(build(), make_guided_batch(n_u=0, classes=classes), loss)
    assert {key for key in losses if 'loss' in key} == {
        'decode.loss_ce', 'aux.loss_ce', 'guide_decode.loss_ce', 'guide_aux.loss_ce', 'consistency.loss'}
    share = sum(c >= 0 for c in classes) / 2
    assert losses['monitor.has_guide'] == share and (losses['consistency.loss'] > 0) == (share > 0)


def test_both_images_get_the_gradient_of_the_consistency(build, make_guided_batch):
    model = build()
    features = []
    model.decode_head.conv_seg.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    losses = run(model, make_guided_batch(n_u=0))
    gradient, = torch.autograd.grad(losses['consistency.loss'], features[0])
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    losses = run(model, make_guided_batch(n_u=0, classes=(-1, )))
    gradient, = torch.autograd.grad(losses['consistency.loss'], features[1])
    assert losses['consistency.loss'] == 0 and (gradient == 0).all()


def test_the_weight_of_the_consistency(build, make_guided_batch):
    one, half, none = (run(build(consistency_weight=w), make_guided_batch(n_u=0))['consistency.loss']
                       for w in (1, .5, 0))
    torch.testing.assert_close(half, one / 2)
    assert none == 0


def test_the_range_of_the_similarity(build, make_guided_batch):
    batch = make_guided_batch(n_u=0)
    relu, affine = (run(build(guidance=dict(similarity_range=name)), batch)['consistency.loss']
                    for name in ('relu', 'affine'))
    assert relu != affine
    with pytest.raises(ValueError, match="similarity_range must be 'relu' or 'affine', found 'abs'"):
        build(guidance=dict(similarity_range='abs'))
    with pytest.raises(ValueError, match='pool_eps must be positive, found 0'):
        build(guidance=dict(pool_eps=0))


def test_a_checkpoint_is_that_of_a_plain_segmentor(build, tiny_cfg):
    plain = MODELS.build(dict(type='EncoderDecoder', **copy.deepcopy(
        {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'auxiliary_head')})))
    plain.load_state_dict(build().state_dict())


def test_prediction_keeps_no_feature(build):
    model = build().eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, 33, 33))
        model.encode_decode(torch.zeros(1, 3, 33, 33), [dict(img_shape=(33, 33), ori_shape=(33, 33))])
    with pytest.raises(RuntimeError, match='has not run'):
        model.tap.pop()


def test_wrong_batches_and_heads(build, make_guided_batch, make_batch, tiny_cfg):
    for weight in (0, 1):
        with pytest.raises(ValueError, match='labeled images without guides'):
            run(build(consistency_weight=weight), make_guided_batch(n_u=0, pairs=False))
    with pytest.raises(TypeError, match='CISCPair trains on a GuidedBatch, found Tensor'):
        build().loss(torch.zeros(1, 3, 33, 33), [])
    with pytest.raises(ValueError, match='consistency_weight must be >= 0, found -1'):
        build(consistency_weight=-1)
    with pytest.raises(ValueError, match=r'decode_head.ignore_index must be 255, .*; found 0'):
        build(decode_head=dict(copy.deepcopy(tiny_cfg.decode_head), ignore_index=0))
    with pytest.raises(ValueError, match=r'auxiliary_head\[0\].ignore_index must be 255, .*; found 9'):
        build(auxiliary_head=dict(copy.deepcopy(tiny_cfg.auxiliary_head), ignore_index=9))
    with pytest.raises(ValueError, match='out_channels is 1 for 2 classes'):
        build(decode_head=dict(copy.deepcopy(tiny_cfg.decode_head), num_classes=2, out_channels=1, threshold=0.5),
              auxiliary_head=None)


def test_values_are_never_read(build, make_guided_batch, to_meta):
    """``.item()``, ``nonzero`` and boolean masks fail on the meta device."""
    model = build()
    losses = model.loss(**to_meta(model, make_guided_batch(n_u=0)))
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.decode_head.conv_seg.weight.grad is not None
