import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import load_state_dict

from mmseg_semi.models.points import stratified_pixels
from mmseg_semi.registry import MODELS


def build(cfg, initialized=True):
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    for net in (model, model.teacher):
        net.decode_head.conv_seg.weight.data.normal_(0, 0.2)
    if initialized:
        head = model.prototype_head
        head.set_bank(torch.rand(head.bank.shape), torch.ones(4, dtype=torch.bool))
    return model.train()


def run_loss(model, batch, iteration=0):
    model.begin_iter(iteration, seed=1, rank=0)
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


def catch_input(module):
    caught = []
    module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    return caught


def reference_prototype_terms(model, batch):
    """Upsample, then pick, then one pixel at a time (spec sections 4b, 4d, 5)."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    inputs, size = data['inputs'], data['inputs'].weak.shape[2:]
    caught = catch_input(model.decode_head.conv_seg)
    head = model.prototype_head
    model.begin_iter(0, 1, 0)
    step = model.new_step(inputs, data['data_samples'])
    step.target = model.pseudo_label(model.teacher_forward(inputs.weak), inputs)
    step.mixed = model.strong_views(step)
    rows, columns = stratified_pixels(*size, head.grid_size, step.generator)
    joint = torch.cat([inputs.labeled, step.mixed[0].images])
    model.decode_head(model.extract_feat(model.data_preprocessor.normalize(joint)))
    full = F.interpolate(caught[0], size, mode='bilinear', align_corners=True)
    target = step.mixed[0].target
    label = torch.cat([step.labels, target.label])
    keep = torch.cat([step.labels != 255, target.weight > 0])
    unit_bank = F.normalize(head.bank, dim=2)
    losses, assigned = ([], []), {}
    for i in range(len(joint)):
        for row, column in zip(rows, columns, strict=True):
            if not keep[i, row, column]:
                continue
            f, y = full[i, :, row, column], label[i, row, column]
            cosine = torch.einsum('ckd,d->ck', unit_bank, F.normalize(f, dim=0))
            losses[i >= len(step.labels)].append(-(cosine.max(1).values / head.temperature).log_softmax(0)[y])
            assigned.setdefault((int(y), int(cosine[y].argmax())), []).append(f.detach())
    bank = head.bank.clone()
    for (c, k), features in assigned.items():
        bank[c, k] = 0.99 * bank[c, k] + 0.01 * torch.stack(features).mean(0)
    return torch.stack(losses[0]).mean(), torch.stack(losses[1]).mean(), bank


@pytest.mark.parametrize('joint, threshold', [(True, 0.4), (False, 0.4), (True, 0.)])
def test_prototype_terms_and_bank_equal_a_slow_reference(tiny_pcr_cfg, make_batch, joint, threshold):
    tiny_pcr_cfg['joint_forward'] = joint
    tiny_pcr_cfg['labeler']['threshold'] = threshold
    model, batch = build(tiny_pcr_cfg), make_batch()
    if not joint:  # the reference runs jointly: take batch statistics out of the comparison
        model.eval()
    twin = copy.deepcopy(model)
    losses = run_loss(model, batch)
    assert 0.1 < losses['monitor.kept'] < 0.99 or threshold == 0
    labeled, unlabeled, bank = reference_prototype_terms(twin, batch)
    torch.testing.assert_close(losses['proto_labeled.loss_ce'], labeled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(losses['proto_unlabeled.loss_ce'], unlabeled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.prototype_head.bank, bank, atol=1e-5, rtol=1e-5)
    assert not torch.equal(bank, twin.prototype_head.bank)
    (losses['proto_labeled.loss_ce'] + losses['proto_unlabeled.loss_ce']).backward()
    (labeled + unlabeled).backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3, msg=name)
    assert twin.backbone.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_a_step_in_bfloat16_is_near_that_in_float32(tiny_pcr_cfg, make_batch, memory_format):
    losses, banks, gradients = [], [], []
    for half in (False, True):
        model = build(tiny_pcr_cfg).to(memory_format=memory_format)
        before = model.prototype_head.bank.clone()
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            found = run_loss(model, make_batch())
        terms = torch.stack([found[f'proto_{name}.loss_ce'] for name in ('labeled', 'unlabeled')])
        terms.sum().backward()
        losses.append(terms.detach())
        banks.append(model.prototype_head.bank - before)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1].dtype == banks[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], atol=0, rtol=0.01)
    # Eighteen layers and BN in 8 bits of mantissa; the features that move the bank are averaged.
    for (exact, half), tolerance in ((banks, 0.05), (gradients, 0.4)):
        assert 0 < (half - exact).norm() < tolerance * exact.norm()


def test_before_initialization_prototype_losses_are_zero_and_the_bank_rests(tiny_pcr_cfg, make_batch):
    model = build(tiny_pcr_cfg, initialized=False)
    losses = run_loss(model, make_batch())
    assert losses['proto_labeled.loss_ce'].item() == losses['proto_unlabeled.loss_ce'].item() == 0
    assert not model.prototype_head.bank.any() and not model.prototype_head.class_valid.any()
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_labeled_only_phase_trains_prototypes_on_labeled_pixels(tiny_pcr_cfg, make_batch):
    model = build(dict(tiny_pcr_cfg, start_iter=5))
    losses = run_loss(model, make_batch(), iteration=0)
    assert losses['proto_labeled.loss_ce'] > 0 and losses['proto_unlabeled.loss_ce'] == 0
    assert 'unsup_0.loss_ce' not in losses


@pytest.mark.parametrize('num_classes', [2, 3])
def test_few_classes(tiny_pcr_cfg, make_batch, num_classes):
    for head in ('decode_head', 'auxiliary_head'):
        tiny_pcr_cfg[head]['num_classes'] = num_classes
    model = MODELS.build(tiny_pcr_cfg)
    head = model.prototype_head
    head.set_bank(torch.rand(head.bank.shape), torch.arange(num_classes) < 2)
    losses = run_loss(model.train(), make_batch(num_classes=num_classes))
    assert losses['proto_labeled.loss_ce'] > 0
    assert all(torch.isfinite(v).all() for v in losses.values())


def test_predicts_with_the_prototype_head(tiny_pcr_cfg):
    model = build(dict(tiny_pcr_cfg, predict_with='prototype')).eval()
    model._CHUNK = 100  # several chunks
    model.teacher.backbone.conv1.weight.data.mul_(-1)
    image = torch.randn(2, 3, 33, 29)
    caught = catch_input(model.teacher.decode_head.conv_seg)
    with torch.no_grad():
        scores = model.encode_decode(image, [dict(img_shape=(33, 29))] * 2)
    full = F.interpolate(caught[0], (33, 29), mode='bilinear', align_corners=True)
    unit = F.normalize(full, dim=1)
    expected = torch.einsum('ndhw,ckd->nckhw', unit, F.normalize(model.prototype_head.bank, dim=2)).amax(2) / 0.1
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    model.eval_with = 'student'
    with torch.no_grad():
        assert not torch.allclose(model.encode_decode(image, [dict(img_shape=(33, 29))] * 2), scores)


def test_prototype_prediction_without_prototypes_is_refused(tiny_pcr_cfg):
    model = build(dict(tiny_pcr_cfg, predict_with='prototype'), initialized=False).eval()
    with pytest.raises(RuntimeError, match='not initialized'):
        model.encode_decode(torch.randn(1, 3, 33, 33), [dict(img_shape=(33, 33))])
    with pytest.raises(ValueError, match="'nearest'"):
        MODELS.build(dict(tiny_pcr_cfg, predict_with='nearest'))


def test_one_weight_for_all_pixels_is_refused(tiny_pcr_cfg):
    ratio = dict(type='ThresholdLabeler', threshold=0.8, reliability='batch_ratio')
    for labeler in (ratio, dict(type='MultiScaleLabeler', labeler=ratio)):
        with pytest.raises(ValueError, match="^PCR does not go with labeler.reliability='batch_ratio': its prototypes"):
            MODELS.build({**tiny_pcr_cfg, 'labeler': labeler})
    MODELS.build({**tiny_pcr_cfg, 'labeler': dict(type='MultiScaleLabeler', labeler={**ratio, 'reliability': 'pixel'})})


def test_checkpoint_without_a_bank_warns_loads_and_linear_prediction_works(tiny_pcr_cfg, monkeypatch):
    printed = []
    monkeypatch.setattr('mmseg_semi.models.heads.prototype_head.print_log', lambda text, **_: printed.append(text))
    model = build(tiny_pcr_cfg)
    load_state_dict(model, model.state_dict())
    assert not printed
    state = {k: v for k, v in model.state_dict().items() if not k.startswith('prototype_head.')}
    load_state_dict(model, state)
    assert len(printed) == 1 and 'The checkpoint holds no prototypes: prototype losses stay 0 until' in printed[0]
    assert not model.prototype_head.initialized
    with torch.no_grad():
        assert model.eval().predict(torch.randn(1, 3, 33, 33))[0].pred_sem_seg.data.shape == (1, 33, 33)


def test_bank_is_in_the_checkpoint_and_in_no_optimizer(tiny_pcr_cfg):
    from mmseg_semi.registry import OPTIM_WRAPPER_CONSTRUCTORS
    model = build(tiny_pcr_cfg)
    assert {'prototype_head.bank', 'prototype_head.class_valid', 'prototype_head.initialized'} <= set(
        model.state_dict())
    for paramwise in (None, dict(custom_keys=dict(decode_head=dict(lr_mult=10.)))):
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(type='SemiOptimWrapperConstructor', optim_wrapper_cfg=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4)), paramwise_cfg=paramwise))
        groups = constructor(model).optimizer.param_groups
        held = {id(p) for g in groups for p in g['params']}
        assert held == {id(p) for n, p in model.named_parameters() if not n.startswith('teacher.')}
        assert len(groups) == (1 if paramwise is None else 2)
        rates = {id(p): g['lr'] for g in groups for p in g['params']}
        scale = 1 if paramwise is None else 10
        assert rates[id(model.decode_head.conv_seg.weight)] == pytest.approx(0.1 * scale)
        assert rates[id(model.backbone.conv1.weight)] == pytest.approx(0.1)


def test_a_bank_of_another_shape_is_refused_even_by_a_lenient_loader(tiny_pcr_cfg):
    other = build({**tiny_pcr_cfg, 'prototype_head': dict(num_prototypes=3, grid_size=8)})
    with pytest.raises(ValueError, match=r'\(4, 3, 12\).*\(4, 2, 12\)'):
        load_state_dict(build(tiny_pcr_cfg), other.state_dict())


def test_counting_flops_leaves_no_graph_behind(tiny_pcr_cfg):
    model = build(tiny_pcr_cfg)
    for who in ('student', 'teacher'):
        model.eval_with = who
        model(torch.randn(1, 3, 33, 33), mode='tensor')
    copy.deepcopy(model)


@pytest.mark.parametrize('teacher_bn', ['running', 'forward'])
def test_a_whole_step_never_reads_a_value(tiny_pcr_cfg, make_batch, teacher_bn, to_meta):
    model = build({**tiny_pcr_cfg, 'teacher_bn': teacher_bn})
    data = to_meta(model, make_batch())
    model.begin_iter(0, seed=1, rank=0)
    losses = model.loss(**data)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.backbone.conv1.weight.grad.is_meta and 'monitor.kept' in losses
