"""A whole step in bfloat16 against the same step in float32, for every method but PCR, which has its own."""
import copy

import pytest
import torch

from mmseg_semi.registry import MODELS

PLAIN = dict(labeler=dict(type='ThresholdLabeler', threshold=0.))
GUIDED = dict(data_preprocessor=dict(type='GuidedSegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, size=(33, 33)))
CSS = dict(
    PLAIN, type='CSS', auxiliary_head=None, unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=0.3),
    representation_head=dict(channels=8, out_channels=6), contrast_threshold=0., hard_threshold=1., num_anchors=64,
    num_negatives=64, ramp_iters=100, warmup_iters=0, joint_forward=False)
METHODS = {
    'fixmatch': PLAIN,
    'maskmatch': dict(
        labeler=dict(type='MultiScaleLabeler', labeler=PLAIN['labeler'], scales=(0.5, 1.0)), joint_forward=True,
        branches=[dict(augments=[dict(type='CutMix', prob=1.)]),
                  dict(augments=[dict(type='PatchMask', block_size=8)], update_bn=False)]),
    **{f'css_{variant}': dict(CSS, variant=variant) for variant in ('ori', 'mix', 'cross')},
    'cisc_online': dict(
        PLAIN, **GUIDED, type='CISCOnline', branches=[dict(augments=[])],
        exclude=(0, 2, 3))}  # one class to draw, whichever pixels get another pseudo-label


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    for network in (model, model.teacher):  # away from the flat predictions of a fresh network, no ties
        network.decode_head.conv_seg.weight.data.normal_(0, 0.5)
    if hasattr(model, 'prototypes'):
        model.prototypes.normal_()
        model.prototype_seen.fill_(True)
    return model.train()


@pytest.mark.parametrize('method', METHODS)
def test_a_step_in_bfloat16_is_near_that_in_float32(tiny_cfg, make_batch, make_guided_batch, method):
    options = METHODS[method]
    batch = make_guided_batch(pseudo=False) if 'data_preprocessor' in options else make_batch()
    found, gradients, states = [], [], []
    for half in (False, True):
        model = build(copy.deepcopy({**tiny_cfg, **options}))
        model.begin_iter(0, seed=1, rank=0)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            losses = model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))
        terms = {key: value for key, value in losses.items() if 'loss' in key}
        sum(terms.values()).backward()
        found.append({key: value.detach() for key, value in terms.items()})
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        states.append({key: value.dtype for key, value in model.state_dict().items()})
    assert states[0] == states[1]
    for key, exact in found[0].items():
        assert exact > 0 and found[1][key].dtype == torch.float32, key
        torch.testing.assert_close(found[1][key], exact, atol=0, rtol=0.03, msg=f'{key}: {exact}, {found[1][key]}')
    # Eighteen layers and BN in 8 bits of mantissa; some pixels get another pseudo-label.
    assert 0 < (gradients[1] - gradients[0]).norm() < 0.5 * gradients[0].norm()
