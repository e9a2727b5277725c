import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.ema import EMA, ema_decay
from mmseg_semi.models.losses import prototype_info_nce
from mmseg_semi.registry import MODELS

CSS = dict(
    type='CSS',
    variant='mix',
    labeler=dict(type='ThresholdLabeler', threshold=0.),
    unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=0.3),
    branches=[dict(augments=[dict(type='RandomScaleCrop'), dict(type='CutMix', prob=1.0), dict(type='RandomMirror')])],
    representation_head=dict(channels=8, out_channels=6),
    contrast_threshold=0.27,
    num_anchors=16,
    num_negatives=32,
    ramp_iters=100,
    warmup_iters=0,
    joint_forward=False)
VARIANTS = ('ori', 'mix', 'cross')


def build(cfg, seen=True, seed=0, **options):
    torch.manual_seed(seed)
    model = MODELS.build({**cfg, **CSS, 'auxiliary_head': None, **options})
    model.init_weights()
    for net in (model, model.teacher):
        net.decode_head.conv_seg.weight.data.normal_(0, 0.5)
    model.prototypes.normal_()
    model.prototype_seen[:3 if seen else 0] = True
    return model.train()


def run_loss(model, batch, iteration=0):
    model.begin_iter(iteration, seed=1, rank=0)
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def forward(network, feature_of, images, model):
    """Logits and representations, by the modules one after the other."""
    caught = []
    handle = network.decode_head.conv_seg.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    logits = network.decode_head(network.extract_feat(model.data_preprocessor.normalize(images)))
    handle.remove()
    return logits, feature_of(caught[0])


def up(maps, size):
    return F.interpolate(maps, size, mode='bilinear', align_corners=True)


def similarity(z, prototypes, seen, tau, size=None):
    """J by loops over the classes: only those that have a prototype."""
    cosines = torch.stack([F.cosine_similarity(z, p[None, :, None, None], dim=1) for p in prototypes], dim=1)
    if size:
        cosines = up(cosines, size)
    exps = (cosines / tau).exp() * seen[None, :, None, None]
    return exps / exps.sum(1, keepdim=True)


def reference_step(model, batch, variant):
    """The specification's section 4, step by step; the network's own augments are replayed."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    inputs, size = data['inputs'], tuple(data['inputs'].weak.shape[2:])
    rho, seen = model.prototypes.clone(), model.prototype_seen.clone()
    model.begin_iter(3, 1, 0)
    step = model.new_step(inputs, data['data_samples'])
    with torch.no_grad():
        logits, z = forward(model.teacher, model.teacher.representation_head, inputs.weak, model)
    k_lgt, y_lgt = up(logits, size).softmax(1).max(1)
    k_rep, y_rep = similarity(z, rho, seen, model.tau_sim, size).max(1)
    ignored = torch.full_like(y_lgt, 255)
    label, k, label_con, k_con = dict(
        ori=(y_lgt, k_lgt, y_lgt, k_lgt),
        mix=(torch.where(y_lgt == y_rep, y_lgt, ignored), k_lgt, torch.where(y_lgt == y_rep, y_lgt, ignored), k_lgt),
        cross=(y_rep, k_rep, y_lgt, k_lgt))[variant]
    # The augments move all four maps alike: they are tested on their own.
    target = model.pseudo_label(model.teacher_forward(inputs.weak), inputs)
    valid = inputs.valid
    torch.testing.assert_close(target.label[valid], label[valid])
    torch.testing.assert_close(target.confidence, k)
    assert (target.label[~valid] == 255).all()
    if variant == 'cross':
        torch.testing.assert_close(target.contrast_label[valid], label_con[valid])
        torch.testing.assert_close(target.contrast_confidence, k_con)
    step.target = target
    view = model.strong_views(step)[0]
    y, k = view.target.label, view.target.confidence * view.target.valid
    con = y, view.target.confidence
    if variant == 'cross':
        con = view.target.contrast_label, view.target.contrast_confidence
    p_l, z_l = forward(model, model.representation_head, inputs.labeled, model)
    p_u, z_u = forward(model, model.representation_head, view.images, model)

    loss_s = F.cross_entropy(up(p_l, step.labels.shape[1:]), step.labels, ignore_index=255)
    pixel = F.cross_entropy(up(p_u, size), y, ignore_index=255, reduction='none')
    numerator, count = 0, 0
    for b in range(len(y)):
        labeled = (y[b] != 255).sum()
        w = (k[b] >= 0.3).sum() / labeled.clamp(min=1)
        numerator, count = numerator + (w * pixel[b][pixel[b] > 0]).sum(), count + (pixel[b] > 0).sum()
    loss_u = numerator / count

    con_label = torch.where((con[1] >= model.contrast_threshold) & view.target.valid, con[0], 255)
    features, hard, flat = [], [], []
    for p, z, y in ((p_l, z_l, step.labels), (p_u, z_u, con_label)):
        small = F.interpolate(y[:, None].double(), z.shape[2:])[:, 0].long()
        pi = p.softmax(1) if variant == 'ori' else similarity(z, rho, seen, model.tau_sim)
        for i, row, column in itertools.product(*map(range, small.shape)):
            c = int(small[i, row, column])
            features.append(z[i, :, row, column])
            hard.append(c != 255 and bool(pi[i, c, row, column] < model.hard_threshold))
            flat.append(c)
    features, hard, flat = torch.stack(features), torch.tensor(hard), torch.tensor(flat)
    for c in range(4):
        if (flat == c).any():
            mean = features[flat == c].detach().mean(0)
            rho[c] = 0.99 * rho[c] + 0.01 * mean if seen[c] else mean
            seen[c] = True
    loss_c = prototype_info_nce(features, flat, hard, rho, 16, 32, model.tau_contrast, generator=step.generator)
    return loss_s, loss_u, math.exp(-5 * 0.03**2) * loss_c, rho, hard[flat != 255].float().mean()


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('options', [
    pytest.param({}, id='equal'),
    pytest.param(dict(n_l=3, n_u=2), id='more labeled'),
    pytest.param(dict(n_l=2, n_u=3, unlabeled_sizes=((41, 49), (41, 45))), id='larger unlabeled crops')])
def test_step_equals_a_slow_reference(tiny_cfg, make_batch, variant, options):
    tiny_cfg.data_preprocessor.size = None  # groups of different sizes
    model, batch = build(tiny_cfg, variant=variant, tau_sim=0.5), make_batch(**options)
    model.hard_threshold = 0.5
    model.eval()  # batch statistics are another test
    twin = copy.deepcopy(model)
    twin.tap, twin.teacher_tap = model.tap.__class__(twin.decode_head), model.tap.__class__(twin.teacher.decode_head)
    model.ramp_mult = twin.ramp_mult = -5
    losses = run_loss(model, batch, iteration=3)
    loss_s, loss_u, loss_c, rho, hard = reference_step(twin, batch, variant)
    torch.testing.assert_close(losses['decode.loss_ce'], loss_s, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses['unsup_0.loss_ce'], loss_u, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses['contrast.loss_nce'], loss_c, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.prototypes, rho, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses['monitor.hard'], hard)
    assert 0 < hard < 1 and loss_u > 0 and loss_c > 0 and model.prototype_seen.all()
    # One SGD step with both.
    for net, loss in ((model, total(losses)), (twin, loss_s + loss_u + loss_c)):
        loss.backward()
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1).step()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)
        if theirs.requires_grad:
            assert theirs.grad is not None, name


def test_defaults_depend_on_the_variant(tiny_cfg):
    found = [(m.tau_sim, m.hard_threshold, m.ramp_mult) for m in (build(tiny_cfg, variant=v) for v in VARIANTS)]
    assert found == [(0.5, 0.97, 0), (0.5, 0.8, -5), (0.1, 0.8, -5)]
    assert type(build(tiny_cfg, unsup_loss=None).unsup_loss).__name__ == 'ImageWeightedCrossEntropy'
    cross = build(tiny_cfg, variant='cross', warmup_iters=None)
    cross.begin_train(40)
    for start, iteration, warm in ((0, 3, True), (0, 4, False), (20, 23, True), (20, 24, False)):
        cross.start_iter = start
        cross.begin_iter(iteration, 0, 0)
        assert cross._warming_up == warm


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_labelers_threshold_leaves_the_contrast_alone(tiny_cfg, make_batch, variant):
    labels = []
    for threshold in (0., 0.4):
        model = build(tiny_cfg, variant=variant, labeler=dict(type='ThresholdLabeler', threshold=threshold)).eval()
        data = model.data_preprocessor(make_batch(), True)
        model.begin_iter(0, 1, 0)
        target = model.pseudo_label(model.teacher_forward(data['inputs'].weak), data['inputs'])
        labels.append((model._contrast_label(target), target.weight))
    assert torch.equal(labels[0][0], labels[1][0]) and (labels[0][0] != 255).any()
    assert 0 < labels[1][1].sum() < labels[0][1].sum()


def test_prototypes_of_another_width_are_refused(tiny_cfg):
    state = build(tiny_cfg).state_dict()
    other = build(tiny_cfg, representation_head=dict(channels=8, out_channels=12))
    with pytest.raises(ValueError, match=r'prototypes of shape .* \(4, 6\), this model expects \(4, 12\)'):
        other.load_state_dict(state, strict=False)


def test_only_weak_views_at_their_own_size_move_the_teachers_statistics(tiny_cfg, make_batch):
    labeler = dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.), scales=(0.5, 1.0))
    model = build(tiny_cfg, variant='ori', teacher_bn='batch', labeler=labeler)
    before = model.teacher.backbone.bn1.num_batches_tracked.clone()
    run_loss(model, make_batch())
    assert model.teacher.backbone.bn1.num_batches_tracked == before + 1
    tiny_cfg.backbone.norm_eval = True
    model = build(tiny_cfg, variant='ori', teacher_bn='batch')
    state = copy.deepcopy(model.teacher.backbone.state_dict())
    run_loss(model, make_batch())
    for name, tensor in model.teacher.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_student_starts_like_a_supervised_model_of_the_same_seed(tiny_cfg):
    torch.manual_seed(3)
    model = MODELS.build({**tiny_cfg, **CSS})
    model.init_weights()
    plain_cfg = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'auxiliary_head', 'test_cfg')}
    torch.manual_seed(3)
    plain = MODELS.build(dict(plain_cfg, type='EncoderDecoder'))
    plain.init_weights()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_soft_labels_and_labeled_branches_of_cross(tiny_cfg, make_batch):
    soft = dict(type='ThresholdLabeler', threshold=0., soft=True)
    assert run_loss(build(tiny_cfg, variant='cross', labeler=soft), make_batch())['unsup_0.loss_ce'] > 0
    with pytest.raises(ValueError, match="Divergence' needs the probabilities of one space.*found 'cross'"):
        build(tiny_cfg, variant='cross', labeler=soft, unsup_loss=dict(type='PseudoLabelKLDivergence'))
    branch = dict(augments=[], labeled=True)
    with pytest.raises(ValueError, match="labeled=True needs one label a pixel.* found 'cross'"):
        build(tiny_cfg, variant='cross', branches=[branch])


def test_one_weight_for_all_pixels_is_refused(tiny_cfg):
    ratio = dict(type='ThresholdLabeler', threshold=0.8, reliability='batch_ratio')
    with pytest.raises(ValueError, match="^CSS does not go with labeler.reliability='batch_ratio'"):
        build(tiny_cfg, labeler=ratio)


def test_warm_up_of_cross_labels_as_ori(tiny_cfg, make_batch):
    targets = {}
    for name, options in dict(ori=dict(variant='ori'), warm=dict(variant='cross', warmup_iters=4),
                              cross=dict(variant='cross', warmup_iters=3)).items():
        model = build(tiny_cfg, **options).eval()
        data = model.data_preprocessor(make_batch(), True)
        model.begin_iter(3, 1, 0)
        targets[name] = model.pseudo_label(model.teacher_forward(data['inputs'].weak), data['inputs'])
    assert torch.equal(targets['warm'].label, targets['ori'].label)
    assert torch.equal(targets['warm'].contrast_label, targets['cross'].contrast_label)
    assert not torch.equal(targets['cross'].label, targets['ori'].label)


def test_ramp(tiny_cfg):
    """Section 11 item 9, in iterations, and section 7's table in epochs."""
    model = build(tiny_cfg, ramp_iters=None, warmup_iters=None)
    model.begin_train(40000)

    def weight(iteration):
        model.begin_iter(iteration, 0, 0)
        return model.contrast_weight()

    assert [round(weight(i), 4) for i in (0, 10000, 20000, 40000, 50000)] == [1, 0.7316, 0.2865, 0, 0]
    model.ramp_iters = 200
    model.begin_train(40000)
    assert [round(weight(i), 4) for i in (20, 50, 100, 150, 199, 200)] == [0.9512, 0.7316, 0.2865, 0.0601, 0.0071, 0]
    model.start_iter = 1000
    model.begin_train(40000)
    assert [round(weight(i), 4) for i in (0, 1000, 1100)] == [1, 1, 0.2865]
    model.ramp_mult = 0
    assert weight(5000) == 1
    resumed = build(tiny_cfg, ramp_iters=None, start_iter=500)
    resumed.begin_train(1500)
    resumed.begin_iter(1000, 0, 0)
    assert round(resumed.contrast_weight(), 4) == 0.2865


@pytest.mark.parametrize('options, says', [
    (dict(tau_sim=0.5), ['at most 0.948; 0.711 for', 'hard_threshold=0.96 can never be reached']),
    (dict(tau_sim=0.4), ['at most 0.980; 0.802 for', 'hard_threshold=0.96 takes prototypes that point away']),
    (dict(tau_sim=0.1), ['at most 1.000', 'hard_threshold=0.96 can be reached']),
    (dict(variant='cross', tau_sim=0.5), ['at most 0.948', 'hard_threshold=0.96 can never be reached',
                                          'unsup_loss.threshold=0.97 can never be reached']),
    (dict(variant='ori', tau_sim=0.5), []),
])
def test_the_start_says_whether_the_indicator_can_fire(tiny_cfg, monkeypatch, options, says):
    model = build(tiny_cfg, hard_threshold=0.96, unsup_loss=dict(type='ImageWeightedCrossEntropy'), **options)
    printed = []
    monkeypatch.setattr('mmseg_semi.models.segmentors.css.print_log', lambda text, *_, **__: printed.append(text))
    model.begin_train(10)
    for text, part in zip(printed, says, strict=True):
        assert part in text


def test_the_start_tells_the_table_of_section_3(tiny_cfg, monkeypatch):
    model, printed = build(tiny_cfg), []
    monkeypatch.setattr('mmseg_semi.models.segmentors.css.print_log', lambda text, *_, **__: printed.append(text))
    for classes, tau, bound, orthogonal in (
            (21, 0.5, '0.732', '0.270'), (19, 0.5, '0.752', '0.291'), (21, 0.25, '0.993', '0.732'),
            (19, 0.25, '0.994', '0.752'), (21, 0.1, '1.000', '0.999'), (19, 0.1, '1.000', '0.999')):
        model.num_classes, model.tau_sim = classes, tau
        model.begin_train(10)
        assert f'at most {bound}; {orthogonal} for a pixel on its prototype' in printed[0]
        warned = [text for text in printed[1:] if 'can be reached' not in text]
        assert len(printed) == 2 and len(warned) == (tau > 0.1)  # hard_threshold=0.8
        printed.clear()


def test_teacher_normalizes_by_the_batch_and_keeps_its_own_statistics(tiny_cfg, make_batch):
    for variant, batches in (('ori', 1), ('mix', 2)):
        model = build(tiny_cfg, variant=variant, teacher_bn='batch')
        layer = model.teacher.backbone.bn1
        before, student = layer.running_mean.clone(), model.backbone.bn1.num_batches_tracked.clone()
        expected, seen = before.clone(), []
        handle = layer.register_forward_pre_hook(
            lambda m, args, seen=seen: seen.append((m.training, args[0].mean((0, 2, 3)))))
        batch = make_batch()
        inputs = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
        run_loss(model, batch)
        handle.remove()
        assert [training for training, _ in seen] == [True] * batches
        # The statistics weigh what comes last more: weak views, behind the labeled images.
        images = [model.data_preprocessor.normalize(images) for images in (inputs.labeled, inputs.weak)][-batches:]
        for (_, mean), shown in zip(seen, images, strict=True):
            torch.testing.assert_close(mean, model.teacher.backbone.conv1(shown).mean((0, 2, 3)))
        for _, mean in seen:
            expected = 0.9 * expected + 0.1 * mean
        torch.testing.assert_close(layer.running_mean, expected)
        assert model.backbone.bn1.num_batches_tracked == student + 2  # labeled and strong images apart
        assert not any(m.training for m in model.teacher.modules())


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('case, without_unsup, classes', [
    ('no prototype', ('mix', 'cross'), 4), ('nothing agreed', ('mix', ), 4), ('nothing confident', VARIANTS, 4),
    ('nothing hard', (), 4), ('all ignored', (), None), ('nothing at all', VARIANTS, 0), ('one class', (), 1),
    ('two classes', (), 2)])
def test_degenerate_batches(tiny_cfg, make_batch, assert_zero_with_graph, variant, case, without_unsup, classes):
    """Exact zeros with a graph where there is nothing to learn, and only there; always finite."""
    options = dict(seed=1) if case == 'one class' else {}  # weights with which both spaces agree on some pixels
    if case in ('nothing confident', 'nothing at all'):  # tau_sim: with 0.1 cross is as sure as float32 can say
        options = dict(contrast_threshold=1., unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=1.),
                       tau_sim=0.5)
    elif case == 'nothing hard':
        options = dict(hard_threshold=0.)
    model, batch = build(tiny_cfg, seen=case != 'no prototype', variant=variant, **options), make_batch()
    never = {'nothing agreed': [0], 'one class': [1, 2, 3], 'two classes': [2, 3]}.get(case, [])
    model.teacher.decode_head.conv_seg.bias.data[never] -= 1000
    if case == 'nothing agreed':
        model.prototype_seen[:] = torch.tensor([True, False, False, False])
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    for sample in data['data_samples']:
        label = sample.gt_sem_seg.data
        if case in ('all ignored', 'nothing at all'):
            label.fill_(255)
        elif case in ('one class', 'two classes'):
            label.copy_(torch.where(label != 255, label % classes, label))
    before = model.prototypes.clone(), model.prototype_seen.clone()
    model.begin_iter(0, 1, 0)
    losses = model.loss(**data)
    zero = {
        'decode.loss_ce': case in ('all ignored', 'nothing at all'),
        'unsup_0.loss_ce': variant in without_unsup,
        'contrast.loss_nce': losses['monitor.classes'] < 2 or case == 'nothing hard'
    }
    for name, nothing in zero.items():
        if nothing:
            assert_zero_with_graph(losses[name], model)
        else:
            assert losses[name] > 0, name
    assert (losses['monitor.image_weight_0'] == 0) == zero['unsup_0.loss_ce']
    if case in ('no prototype', 'nothing agreed'):
        assert (losses['monitor.kept'] == 0) == zero['unsup_0.loss_ce']
    assert (losses['monitor.hard'] == 0) == (case in ('nothing hard', 'nothing at all'))
    if classes is not None:
        assert losses['monitor.classes'] == classes
        assert torch.equal(model.prototypes[classes:], before[0][classes:])
        assert torch.equal(model.prototype_seen[classes:], before[1][classes:])
    total(losses).backward()
    assert all(torch.isfinite(v).all() for v in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert torch.isfinite(model.prototypes).all() and losses['monitor.not_finite'] == 0


def test_a_pixel_that_is_not_finite_costs_its_class_one_update(tiny_cfg, make_batch):
    model, batch = build(tiny_cfg, warmup_iters=0), make_batch()
    before, where = model.prototypes.clone(), []

    def spoil(module, args, out):
        if not where:  # the labeled images, which pass first
            labels = torch.stack([s.gt_sem_seg.data[0] for s in batch['labeled']['data_samples'][:1]])
            small = F.interpolate(labels[:, None].double(), out.shape[2:])[0, 0].long()
            where.append(int(small[2, 2]))
            out = out.clone()
            out[0, :, 2, 2] = float('nan')
        return out

    model.representation_head.register_forward_hook(spoil)
    losses = run_loss(model, batch)
    assert losses['monitor.not_finite'] == 1 and where[0] != 255
    moved = (model.prototypes != before).any(1).tolist()
    assert moved == [c != where[0] for c in range(4)] and torch.isfinite(model.prototypes).all()


@pytest.mark.parametrize('size', [(33, 33), (41, 49)])
def test_prototypes_of_the_teacher(tiny_cfg, make_batch, size):
    """Eq. 2 of the paper: the mean of the teacher's z of labeled images and weak views, pixel by pixel."""
    tiny_cfg.data_preprocessor.size = None
    model, batch = build(tiny_cfg, prototype_source='teacher').eval(), make_batch(unlabeled_sizes=(size, ))
    twin = copy.deepcopy(model)
    for parameter in model.representation_head.parameters():
        parameter.data.add_(1)  # the student's z must not count
    run_loss(model, batch)
    data = twin.data_preprocessor(copy.deepcopy(batch), True)
    inputs = data['inputs']
    twin.begin_iter(0, 1, 0)
    step = twin.new_step(inputs, data['data_samples'])
    with torch.no_grad():
        logits, z = zip(*(forward(twin.teacher, twin.teacher.representation_head, images, twin)
                          for images in (inputs.labeled, inputs.weak)), strict=True)
    k_lgt, y_lgt = up(logits[1], size).softmax(1).max(1)
    y_rep = similarity(z[1], twin.prototypes, twin.prototype_seen, 0.5, size).argmax(1)
    fits = (y_lgt == y_rep) & (k_lgt >= twin.contrast_threshold) & inputs.valid
    labels = step.labels, torch.where(fits, y_lgt, 255)
    small = [F.interpolate(y[:, None].double(), maps.shape[2:])[:, 0].long() for y, maps in zip(labels, z, strict=True)]
    for c in range(4):
        mean = torch.cat([maps.permute(0, 2, 3, 1)[y == c] for y, maps in zip(small, z, strict=True)]).mean(0)
        expected = 0.99 * twin.prototypes[c] + 0.01 * mean if c < 3 else mean
        torch.testing.assert_close(model.prototypes[c], expected, atol=1e-6, rtol=1e-5)
    labeled_only = build(tiny_cfg, prototype_source='teacher', start_iter=5)
    run_loss(labeled_only, batch)
    assert labeled_only.prototype_seen.all()


def test_another_unsupervised_loss_fits(tiny_cfg, make_batch):
    """The paper's Eq. 8: confident pixels only, instead of a weight per image."""
    model = build(tiny_cfg, unsup_loss=dict(type='PseudoLabelCrossEntropy'),
                  labeler=dict(type='ThresholdLabeler', threshold=0.3), variant='ori')
    losses = run_loss(model, make_batch())
    assert 0 < losses['monitor.kept'] < 1 and losses['unsup_0.loss_ce'] > 0
    assert not any('image_weight' in key for key in losses)


def test_labeled_only_phase_moves_prototypes_by_labeled_pixels(tiny_cfg, make_batch):
    model = build(tiny_cfg, seen=False, start_iter=5)
    losses = run_loss(model, make_batch())
    assert losses['contrast.loss_nce'] > 0 and 'unsup_0.loss_ce' not in losses
    assert model.prototype_seen.all() and losses['monitor.classes'] == 4


def test_teacher_head_follows_and_everything_is_in_the_checkpoint(tiny_cfg, make_batch):
    model = build(tiny_cfg)
    ema = EMA(model.teacher, model, 'own')
    with torch.no_grad():
        model.representation_head.project.weight.add_(1)
    before = model.teacher.representation_head.project.weight.clone()
    ema.update(ema_decay(1, 0.99))
    torch.testing.assert_close(model.teacher.representation_head.project.weight,
                               (before + model.representation_head.project.weight) / 2)
    run_loss(model, make_batch())
    fresh = build(tiny_cfg, seen=False)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.prototypes, model.prototypes) and torch.equal(fresh.prototype_seen, model.prototype_seen)


def test_prediction_needs_neither_head_nor_prototypes(tiny_cfg):
    model = build(tiny_cfg).eval()
    images = torch.rand(1, 3, 33, 33)
    expected = model(images, mode='tensor')
    with torch.no_grad():
        model.prototypes.fill_(math.nan)
        for parameter in model.teacher.representation_head.parameters():
            parameter.fill_(math.nan)
    assert torch.equal(model(images, mode='tensor'), expected)
    assert model(images, mode='predict')[0].pred_sem_seg.data.shape == (1, 33, 33)
    copy.deepcopy(model)  # no graph is left in the taps


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_whole_step_never_reads_a_value(tiny_cfg, make_batch, variant, to_meta):
    model = build(tiny_cfg, variant=variant, teacher_bn='batch')
    data = to_meta(model, make_batch())
    model.begin_iter(0, seed=1, rank=0)
    total(model.loss(**data)).backward()
    assert model.backbone.conv1.weight.grad.is_meta


@pytest.mark.parametrize('option, value', [
    ('variant', 'both'), ('tau_sim', 0), ('tau_contrast', -1), ('contrast_threshold', 2), ('hard_threshold', -.1),
    ('num_anchors', 0), ('num_negatives', 0), ('prototype_momentum', 1), ('prototype_source', 'both'),
    ('unseen', 'skip'), ('ramp_mult', 5),
    ('ramp_iters', 0), ('warmup_iters', -1)])
def test_bad_options_name_themselves(tiny_cfg, option, value):
    with pytest.raises(ValueError, match=f'CSS.{option} must be .*, found {value!r}'):
        build(tiny_cfg, **{option: value})


def test_decoder_of_the_paper():
    """Section 2: 304 channels, one hidden layer each, 766,720 parameters in the representation head."""
    norm = dict(type='BN')
    head = MODELS.build(dict(
        type='DeepLabV3PlusHead', in_channels=2048, in_index=3, channels=256, dilations=(1, 12, 24, 36),
        c1_in_channels=256, c1_channels=48, c1_bias=False, bottleneck_kernel=1, num_convs=1, dropout_ratio=0,
        num_classes=21, norm_cfg=norm, align_corners=True, loss_decode=dict(type='ValidCrossEntropyLoss')))
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if p.dim() == 4 or name.endswith('seg.bias')}
    assert shapes['bottleneck.conv.weight'] == (256, 1280, 1, 1)
    assert shapes['c1_bottleneck.conv.weight'] == (48, 256, 1, 1) and head.c1_bottleneck.conv.bias is None
    assert shapes['classifier.0.conv.weight'] == (256, 304, 3, 3)
    assert shapes['conv_seg.weight'] == (21, 256, 1, 1) and shapes['conv_seg.bias'] == (21, )
    assert len(shapes) == 10  # image pool and four ASPP branches besides
    representation = MODELS.build(dict(type='RepresentationHead', in_channels=304, norm_cfg=norm))
    assert sum(p.numel() for p in representation.parameters()) == 766720
