"""MaskMatch is SemiEncoderDecoder with PatchMask and MultiScaleLabeler: the specification's acceptance tests."""
import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_semi.models.batch_norm import untracked_statistics
from mmseg_semi.registry import MODELS

STRONG = dict(augments=[dict(type='CutMix', prob=1.0)], loss_weight=0.5)
MASK = dict(type='PatchMask', block_size=8, ratio=0.7)


def masked(update_bn=False, **options):
    return dict(augments=[{**MASK, **options}], loss_weight=0.5, update_bn=update_bn)


def build(cfg, *branches, **options):
    torch.manual_seed(0)
    model = MODELS.build({**cfg, 'branches': list(branches), **options})
    model.init_weights()
    for net in (model, model.teacher):
        net.decode_head.conv_seg.weight.data.normal_(0, 0.2)
    return model.train()


def run_loss(model, batch, iteration=0, rank=0):
    model.begin_iter(iteration, seed=1, rank=rank)
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


def inputs_of(module):
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    return seen


def statistics(network):
    return {name: value.clone() for name, value in network.named_buffers() if 'running' in name or 'num_b' in name}


def test_teacher_sees_the_same_image_with_and_without_masking(tiny_cfg, make_batch):
    seen = []
    for branches in ([STRONG], [STRONG, masked()]):
        model = build(tiny_cfg, *branches)
        seen.append(inputs_of(model.teacher.backbone))
        run_loss(model, make_batch())
    (without, ), (with_mask, ) = seen
    assert torch.equal(without, with_mask)


def test_nothing_masked_is_plain_consistency(tiny_cfg, make_batch):
    jitter = dict(type='ColorJitter', prob=1.0)
    losses = []
    for branch in (dict(augments=[jitter], loss_weight=0.5, update_bn=False),
                   dict(augments=[jitter, {**MASK, 'ratio': 0.}], loss_weight=0.5, update_bn=False)):
        losses.append(run_loss(build(tiny_cfg, branch), make_batch()))
    assert losses[0]['unsup_0.loss_ce'] == losses[1]['unsup_0.loss_ce'] > 0


def test_masked_view_leaves_the_running_statistics_alone(tiny_cfg, make_batch):
    alone, guarded, open_ = (build(tiny_cfg, *branches) for branches in (
        [STRONG], [STRONG, masked()], [STRONG, masked(update_bn=True)]))
    for model in (alone, guarded, open_):
        seen = inputs_of(model.backbone)
        run_loss(model, make_batch())
        # Labeled and strong images are one batch; the masked ones join only where they may.
        assert [len(images) for images in seen] == {id(alone): [4], id(guarded): [4, 2], id(open_): [6]}[id(model)]
    expected = statistics(alone.backbone)
    for name, value in statistics(guarded.backbone).items():
        assert torch.equal(value, expected[name]), name
    assert not all(torch.equal(value, expected[name]) for name, value in statistics(open_.backbone).items())
    buffers = [b for m in guarded.modules() if isinstance(m, _BatchNorm) for b in (m.running_mean, m.running_var)]
    own = {id(b) for b in guarded.buffers()}
    assert all(id(b) in own for b in buffers)


def test_untracked_layers_normalize_by_the_batch():
    torch.manual_seed(0)
    layer, images = torch.nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5) * 3 + 7
    before, mean = copy.deepcopy(layer.state_dict()), layer.running_mean
    with untracked_statistics(layer):
        layer(images * float('nan'))
    assert layer.running_mean is mean  # the EMA holds the tensor itself
    with pytest.raises(KeyError), untracked_statistics(layer):
        out = layer(images)
        raise KeyError  # also left in order by an error
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    layer(images)
    assert not torch.equal(layer.running_mean, before['running_mean'])


def test_repeated_forwards_are_refused(tiny_cfg):
    tiny_cfg.backbone.with_cp = True
    build(tiny_cfg, STRONG, masked(update_bn=True))
    with pytest.raises(ValueError, match='with_cp=False .found in backbone'):
        build(tiny_cfg, STRONG, masked())


def test_only_the_masked_region_is_trained(tiny_cfg, make_batch):
    model = build(tiny_cfg, masked(loss_region='masked'), labeler=dict(type='ThresholdLabeler', threshold=0.))
    data = model.data_preprocessor(make_batch(), True)
    model.begin_iter(0, 1, 0)
    step = model.new_step(**data)
    step.target = model.pseudo_label(model.teacher_forward(step.batch.weak), step.batch)
    step.mixed = model.strong_views(step)
    visible = (step.mixed[0].images == step.batch.weak).all(1)
    logits = torch.randn(2, 4, 33, 33, requires_grad=True)  # at image size: a pixel has its own logits
    model.unsup_loss(logits, step.mixed[0].target, True).backward()
    gradient = logits.grad.abs().sum(1)
    assert not gradient[visible].any() and gradient[~visible & step.batch.valid].all()


def test_nothing_comes_behind_the_mask(tiny_cfg):
    for behind in (dict(type='GaussianBlur'), dict(type='CutMix'), MASK):
        found = rf"found augments .'ColorJitter', 'PatchMask', '{behind['type']}'.*put it last"
        augments = [dict(type='ColorJitter'), MASK, behind]
        with pytest.raises(ValueError, match=rf'^branches.1.: nothing may come behind PatchMask, {found}'):
            build(tiny_cfg, STRONG, dict(augments=augments))
        with pytest.raises(ValueError, match=f'^labeled_augments: nothing may come behind PatchMask, {found}'):
            build(tiny_cfg, STRONG, labeled_augments=augments)
    build(tiny_cfg, STRONG, dict(augments=[dict(type='CutMix'), MASK]))  # the mixed view, masked


def test_masks_differ_between_images_iterations_and_ranks(tiny_cfg, make_batch):
    model = build(tiny_cfg, masked())
    data = model.data_preprocessor(make_batch(), True)
    masks = []
    for iteration, rank in ((0, 0), (1, 0), (0, 1)):
        model.begin_iter(iteration, 1, rank)
        step = model.new_step(**data)
        step.target = model.pseudo_label(model.teacher_forward(step.batch.weak), step.batch)
        masks += list((model.strong_views(step)[0].images == step.batch.weak).all(1))
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_hidden_pixels_are_zero_for_the_network(tiny_cfg, make_batch):
    tiny_cfg.data_preprocessor.update(mean=[10., 100., 200.], std=[20., 30., 40.])
    model = build(tiny_cfg, masked())
    seen = inputs_of(model.backbone)
    run_loss(model, make_batch())
    hidden = (seen[1] == 0).all(1)
    assert 0.3 < hidden.float().mean() < 0.95 and (seen[1][0] == 0).all(0).any()


def test_ensemble_labels_feed_every_branch(tiny_cfg, make_batch):
    ensemble = dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.3))
    model = build(tiny_cfg, STRONG, masked(), labeler=ensemble)
    seen = inputs_of(model.teacher.backbone)
    targets = []
    model.unsup_loss.register_forward_pre_hook(lambda _, args: targets.append(args[1]))
    losses = run_loss(model, make_batch())
    assert [tuple(images.shape[2:]) for images in seen] == [(33, 33), (16, 16), (50, 50)]
    inputs = model.data_preprocessor(make_batch(), True)['inputs']
    with torch.no_grad():
        full = torch.nn.functional.interpolate
        mean = 0
        for size in ((33, 33), (16, 16), (50, 50)):
            images = model.data_preprocessor.normalize(full(inputs.weak, size, mode='bilinear'))
            logits = model.teacher.decode_head(model.teacher.extract_feat(images))
            probability = full(logits, size, mode='bilinear', align_corners=True).softmax(1)
            mean = mean + full(probability, (33, 33), mode='bilinear') / 3
    # The masked view keeps the label of the ensemble in place; the CutMix view has the same labels, moved.
    assert torch.equal(targets[1].label, mean.argmax(1))
    torch.testing.assert_close(targets[1].confidence, mean.amax(1))
    assert set(targets[0].confidence.flatten().tolist()) <= set(targets[1].confidence.flatten().tolist())
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert {'unsup_0.loss_ce', 'unsup_1.loss_ce'} <= losses.keys()
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize('method', ['PCR', 'CSS', 'CISCOnline'])
def test_the_parts_go_with_every_method(tiny_cfg, make_batch, make_guided_batch, method):
    options = dict(
        PCR=dict(tiny_cfg, type='PCR', prototype_head=dict(num_prototypes=2, grid_size=8)),
        CSS=dict(tiny_cfg, type='CSS', auxiliary_head=None, ramp_iters=10, warmup_iters=0, joint_forward=False,
                 unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=0.),
                 representation_head=dict(channels=8, out_channels=6)),
        CISCOnline=dict(tiny_cfg, type='CISCOnline',
                        data_preprocessor=dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor')))[method]
    batch = make_guided_batch(pseudo=False) if method == 'CISCOnline' else make_batch()
    losses, steps = [], []
    for branches in ([dict(augments=[])], [dict(augments=[]), masked()]):
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy({
            **options, 'branches': branches,
            'labeler': dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.))}))
        model.init_weights()
        model.train()
        if method == 'PCR':
            head = model.prototype_head
            head.set_bank(torch.rand(head.bank.shape), torch.ones_like(head.class_valid))
        elif method == 'CSS':
            model.prototypes.normal_()
            model.prototype_seen.fill_(True)
        before = model.backbone.bn1.num_batches_tracked.clone()
        losses.append(run_loss(model, batch))
        steps.append(model.backbone.bn1.num_batches_tracked - before)
        sum(value for key, value in losses[-1].items() if 'loss' in key).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert steps[0] == steps[1]  # the masked view leaves the statistics alone
    for name in ('decode.loss_ce', 'unsup_0.loss_ce', 'monitor.kept_single'):
        torch.testing.assert_close(losses[1][name], losses[0][name], msg=name)
    assert losses[1]['unsup_1.loss_ce'] > 0 and 'unsup_1.loss_ce' not in losses[0]


def test_iterations_of_the_ensemble_count_from_the_first_labels(tiny_cfg, make_batch):
    inner = dict(type='ThresholdLabeler', threshold=0.3)
    labeler = dict(type='MultiScaleLabeler', labeler=inner, every_n=2, warm_iters=2)
    model = build(tiny_cfg, STRONG, labeler=labeler, start_iter=3)
    seen, forwards = inputs_of(model.teacher.backbone), []
    for iteration in range(2, 9):
        run_loss(model, make_batch(), iteration)
        forwards.append(len(seen))
        seen.clear()
    assert forwards == [0, 1, 1, 3, 1, 3, 1]


def test_the_log_tells_what_the_ensemble_drops(tiny_cfg, make_batch):
    inner = dict(type='ThresholdLabeler', threshold=0.3)
    alone = run_loss(build(tiny_cfg, STRONG, labeler=inner), make_batch())
    both = run_loss(build(tiny_cfg, STRONG, labeler=dict(type='MultiScaleLabeler', labeler=inner)), make_batch())
    assert 'monitor.kept_single' not in alone
    assert 0 < both['monitor.kept'] < both['monitor.kept_single'] == alone['monitor.kept'] < 1


def test_a_whole_step_never_reads_a_value(tiny_cfg, make_batch, to_meta):
    labeler = dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.3), flip=True)
    model = build(tiny_cfg, STRONG, masked(), labeler=labeler)
    data = to_meta(model, make_batch())
    model.begin_iter(0, seed=1, rank=0)
    losses = model.loss(**data)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.backbone.conv1.weight.grad.is_meta and losses['monitor.kept_single'].is_meta


def test_padding_changes_no_gradient(tiny_cfg, make_batch):
    gradients = []
    for fill in (0., 9.):
        # One 1x1 convolution for each network: what lies at a pixel reaches no other one.
        model = build(tiny_cfg, masked(loss_region='visible'), auxiliary_head=None)
        torch.manual_seed(0)
        for network in (model, model.teacher):
            network.backbone, network.decode_head = torch.nn.Identity(), torch.nn.Conv2d(3, 4, 1)
        data = model.data_preprocessor(make_batch(sizes=((33, 29), )), True)
        inputs = data['inputs']
        weak = torch.where(inputs.valid[:, None], inputs.weak, fill)
        model.begin_iter(0, 1, 0)
        step = model.new_step(type(inputs)(inputs.labeled, weak, inputs.valid), data['data_samples'])
        step.target = model.pseudo_label(model.teacher_forward(weak), step.batch)
        step.mixed = model.strong_views(step)
        model.student_views(step)
        model.unsupervised_loss(step)['unsup_0.loss_ce'].backward()
        gradients.append(model.decode_head.weight.grad)
    assert gradients[0].any() and torch.equal(*gradients)


def test_soft_targets_of_the_masked_task(tiny_cfg, make_batch):
    """KL(P || S) with P the mean over scales, pixel by pixel; the strong view keeps hard labels."""
    labeler = dict(type='MultiScaleLabeler', scales=(1.0, 2.0),
                   labeler=dict(type='ThresholdLabeler', threshold=0.3, soft=True))
    soft = dict(masked(), unsup_loss=dict(type='PseudoLabelKLDivergence'))
    model = build(tiny_cfg, STRONG, soft, labeler=labeler)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    data = model.data_preprocessor(make_batch(), True)
    model.begin_iter(0, 1, 0)
    step = model.new_step(data['inputs'], data['data_samples'])
    model.teacher_views(step)
    step.target = model.pseudo_label(step.out_teacher, data['inputs'])
    step.mixed = model.strong_views(step)
    model.student_views(step)
    losses = model.unsupervised_loss(step)

    def full(logits):
        return torch.nn.functional.interpolate(logits, (33, 33), mode='bilinear', align_corners=True).softmax(1)

    weak, target = data['inputs'].weak, step.target
    large = torch.nn.functional.interpolate(weak, (66, 66), mode='bilinear', align_corners=False)
    logits = model.teacher_forward(large).logits
    double = torch.nn.functional.interpolate(logits, (66, 66), mode='bilinear', align_corners=True).softmax(1)
    double = torch.nn.functional.interpolate(double, (33, 33), mode='bilinear', align_corners=False)
    p = (full(step.out_teacher.logits) + double) / 2
    torch.testing.assert_close(target.probability, p, atol=1e-5, rtol=1e-4)
    assert 0 < target.weight.mean() < 1
    s = full(step.out_mixed[1].logits)
    kl = (p * (p / s).log()).sum(1)
    expected = 0.5 * (kl * target.weight).sum() / target.valid.sum()
    torch.testing.assert_close(losses['unsup_1.loss_ce'], expected, atol=1e-5, rtol=1e-4)
    hard = model.unsup_loss(step.out_mixed[0].logits, step.mixed[0].target, True)
    torch.testing.assert_close(losses['unsup_0.loss_ce'], 0.5 * hard)
    with pytest.raises(TypeError, match='set soft=True in the labeler'):
        run_loss(build(tiny_cfg, soft), make_batch())


def test_weight_of_the_masked_task_may_rise(tiny_cfg, make_batch):
    ramped = dict(masked(), ramp_iters=4)
    model, plain = build(tiny_cfg, ramped, start_iter=3), build(tiny_cfg, masked(), start_iter=3)
    for iteration, share in ((3, 0.25), (4, 0.5), (6, 1), (9, 1)):
        loss, full = (run_loss(copy.deepcopy(m), make_batch(), iteration)['unsup_0.loss_ce'] for m in (model, plain))
        torch.testing.assert_close(loss, share * full)
    with pytest.raises(ValueError, match=r'^branches.0.: ramp_iters must be >= 0, found -1'):
        build(tiny_cfg, dict(masked(), ramp_iters=-1))


def test_masked_labeled_images(tiny_cfg, make_batch):
    """The mean over the pixels of both kinds of images, with the ground truth of the labeled ones."""
    model = build(tiny_cfg, dict(masked(), labeled=True), labeler=dict(type='ThresholdLabeler', threshold=2 / 7))
    data = model.data_preprocessor(make_batch(), True)
    model.begin_iter(0, 1, 0)
    step = model.new_step(data['inputs'], data['data_samples'])
    model.teacher_views(step)
    step.target = model.pseudo_label(step.out_teacher, data['inputs'])
    step.mixed = model.strong_views(step)
    model.student_views(step)
    assert len(step.out_mixed[0].logits) == 4 and len(step.out_labeled.logits) == 2
    logits = torch.nn.functional.interpolate(step.out_mixed[0].logits, (33, 33), mode='bilinear', align_corners=True)
    of_weak = torch.nn.functional.cross_entropy(logits[:2], step.target.label, reduction='none') * step.target.weight
    of_labeled = torch.nn.functional.cross_entropy(logits[2:], step.labels, reduction='none', ignore_index=255)
    expected = (of_weak.sum() + of_labeled.sum()) / (step.target.valid.sum() + (step.labels != 255).sum())
    torch.testing.assert_close(model.unsupervised_loss(step)['unsup_0.loss_ce'], 0.5 * expected)


@pytest.mark.parametrize('case, zero', [
    ('nothing confident', ('unsup_0', 'unsup_1')), ('only padding', ('unsup_0', 'unsup_1')),
    ('nothing hidden', ('unsup_1', )), ('all ignored', ('decode', 'aux')),
    ('nothing at all', ('decode', 'aux', 'unsup_0', 'unsup_1'))])
def test_degenerate_batches(tiny_cfg, make_batch, assert_zero_with_graph, case, zero):
    """Exact zeros with a graph where there is nothing to learn, and only there."""
    threshold = 1. if case in ('nothing confident', 'nothing at all') else 0.
    branch = masked(loss_region='masked', ratio=0. if case == 'nothing hidden' else 0.7)
    labeler = dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=threshold))
    model = build(tiny_cfg, STRONG, branch, labeler=labeler)
    data = model.data_preprocessor(make_batch(), True)
    if case in ('all ignored', 'nothing at all'):
        for sample in data['data_samples']:
            sample.gt_sem_seg.data.fill_(255)
    if case == 'only padding':
        data['inputs'].valid.fill_(False)
    model.begin_iter(0, 1, 0)
    losses = model.loss(**data)
    for part in ('decode', 'aux', 'unsup_0', 'unsup_1'):
        if part in zero:
            assert_zero_with_graph(losses[f'{part}.loss_ce'], model)
        else:
            assert losses[f'{part}.loss_ce'] > 0, part
    assert losses['monitor.kept'] == (case in ('nothing hidden', 'all ignored'))
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
