import copy

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.segmentors.cisc_online import present_classes
from mmseg_semi.registry import MODELS

MIRROR = dict(type='RandomMirror', prob=1.0)


@pytest.fixture
def build(tiny_cfg):
    """Function that builds the tiny network as CISCOnline with a teacher of other weights."""

    def make(**options):
        torch.manual_seed(0)
        cfg = dict(copy.deepcopy(tiny_cfg.to_dict()), type='CISCOnline', branches=[dict(augments=[])], min_area=0.05)
        cfg['data_preprocessor']['type'] = 'GuidedSegDataPreProcessor'
        model = MODELS.build({**cfg, **options})
        model.init_weights()
        for parameter in model.teacher.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.teacher.decode_head.conv_seg.weight.data.normal_(0, 0.5)
        return model.train()

    return make


def run(model, batch, iteration=3):
    model.begin_iter(iteration, seed=1, rank=0)
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


def share(label, c):
    """Of the whole crop, padding included."""
    return (label == c).sum().item() / label.numel()


@pytest.mark.parametrize('options', [
    dict(), dict(branches=[dict(augments=[MIRROR])]), dict(consistency_weight=0.3), dict(exclude=[0, 1]),
    dict(exclude=[0, 1, 2, 3]), dict(joint_forward=False, auxiliary_head=None), dict(guidance=dict(pool_eps=1.))])
def test_a_step_equals_the_specification(build, make_guided_batch, reference, assert_same_step, options, monkeypatch):
    if 'guidance' in options:  # the reference knows the published one
        vector = reference.vector
        monkeypatch.setattr(reference, 'vector', staticmethod(
            lambda features, mask: vector(features, mask) * (mask.sum() + 5e-4) / (mask.sum() + 1)))

    def loss(model, batch):
        images, labels, guides, guide_labels, pairs = reference.read(batch['labeled'])
        weak, _, u_guides, u_labels, _ = reference.read(batch['unlabeled'])
        valid = model.data_preprocessor(copy.deepcopy(batch), True)['inputs'].valid
        with torch.no_grad():
            (logits, *_), f_u = reference.forward(model.teacher, weak)
            _, f_g = reference.forward(model.teacher, u_guides)
            confidence, y = logits.softmax(1).max(1)
            kept = valid & (confidence >= 0.3)
            shared = [[c for c in range(4) if c not in options.get('exclude', ())
                       and share(y[i].where(kept[i], 255), c) >= 0.05 and share(u_labels[i], c) >= 0.05]
                      for i in range(len(y))]
            model.begin_iter(3, seed=1, rank=0)
            drawn = picked(model, batch)  # which of them it is, is tested below
            assert all(c in cs if cs else c == -1 for c, cs in zip(drawn, shared, strict=True))
            weight = kept * reference.weights(f_u, y, f_g, u_labels, drawn)
        strong = weak
        if 'branches' in options:
            strong, weight, y, valid = (x.flip(-1) for x in (weak, weight, y, valid))
        labeled, labels = torch.cat([images, guides]), torch.cat([labels, guide_labels])
        n = len(labeled)
        if options.get('joint_forward', True):
            out, features = reference.forward(model, torch.cat([labeled, strong]))
        else:
            (one, f), (other, _) = (reference.forward(model, x) for x in (labeled, strong))
            out, features = [torch.cat([a, b]) for a, b in zip(one, other, strict=True)], f
        ce = F.cross_entropy(out[0][n:], y, reduction='none')
        return (reference.supervised([x[:n] for x in out], labels) + (weight * ce).sum() / valid.sum()
                + options.get('consistency_weight', 1) * reference.consistency(features[:n], labels, pairs))

    model = build(**options)
    model.begin_iter(3, seed=1, rank=0)
    losses = assert_same_step(model, make_guided_batch(pseudo=False), loss)
    assert ('consistency.loss' in losses) and 0 <= losses['monitor.mean_weight'] <= 1
    if len(options.get('exclude', ())) == 4:
        assert losses['monitor.has_guide'] == 0 and losses['monitor.mean_weight'] == 1
    else:
        assert losses['monitor.has_guide'] > 0 and losses['monitor.mean_weight'] < 1
    assert 0 < losses['monitor.kept'] <= 1


def picked(model, batch):
    """The classes that the step draws."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    step = model.new_step(data['inputs'], data['data_samples'])
    model.teacher_views(step)
    step.target = model.pseudo_label(step.out_teacher, data['inputs'])
    return model.shared_class(step).tolist()


def test_area_counts_the_whole_crop():
    label = torch.zeros(2, 10, 10, dtype=torch.long)
    label[0, 0, :3], label[1, 0, :2] = 1, 1
    counted = torch.ones_like(label, dtype=torch.bool)
    counted[:, 4:] = False  # 60 ignored pixels are part of the whole
    assert present_classes(label, counted, 3, 0.03).tolist() == [[True, True, False], [True, False, False]]
    for percent in range(1, 100):
        label = torch.ones(1, 10, 10, dtype=torch.long)
        label.view(-1)[:percent] = 0
        assert present_classes(label, counted[:1] | True, 2, percent / 100)[0, 0]
        assert not present_classes(label, counted[:1] | True, 2, (percent + .5) / 100)[0, 0]


def test_the_class_is_drawn_uniformly_and_by_the_iteration_only(build, make_guided_batch):
    model, batch = build(min_area=0.01), make_guided_batch(pseudo=False)
    found = []
    for iteration in range(150):
        model.begin_iter(iteration, seed=0, rank=0)
        found.append(picked(model, batch))
    model.begin_iter(7, seed=0, rank=0)
    assert picked(model, batch) == found[7]
    for image in zip(*found, strict=True):
        counts = [image.count(c) for c in sorted(set(image))]
        assert len(counts) > 1 and min(counts) > 0.6 * 150 / len(counts)


def test_what_the_table_learns(build, make_guided_batch):
    model, batch = build(), make_guided_batch(pseudo=False)
    assert model.predicted_classes is None
    run(model, batch)
    inputs = model.data_preprocessor(batch, True)['inputs']
    target = model.pseudo_label(model.teacher_forward(inputs.weak), inputs)
    for i in range(2):
        label = target.label[i].where(target.weight[i] > 0, 255)
        assert model.predicted_classes[i].tolist() == [share(label, c) >= 0.05 for c in range(4)]
    assert model.predicted_classes.dtype == torch.uint8


def test_labeled_only_phase(build, make_guided_batch):
    model = build(start_iter=5)
    losses = run(model, make_guided_batch(pseudo=False), iteration=4)
    assert 'consistency.loss' in losses and not any('unsup' in key or 'monitor' in key for key in losses)
    assert model.predicted_classes is None


def test_a_checkpoint_holds_the_teacher_and_nothing_new(build, tiny_cfg):
    base = MODELS.build(dict(copy.deepcopy(tiny_cfg.to_dict())))
    assert build().state_dict().keys() == base.state_dict().keys()


def test_prediction_keeps_no_feature(build):
    for who in ('student', 'teacher'):
        model = build(eval_with=who).eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, 33, 33))
            model.encode_decode(torch.zeros(1, 3, 33, 33), [dict(img_shape=(33, 33), ori_shape=(33, 33))])
        for tap in (model.tap, model.teacher_tap):
            with pytest.raises(RuntimeError, match='has not run'):
                tap.pop()


def test_wrong_batches_and_options(build, make_guided_batch):
    with pytest.raises(ValueError, match='unlabeled images with guides, found no unlabeled images'):
        run(build(), make_guided_batch(n_u=0))
    with pytest.raises(ValueError, match='consistency_weight=1.0 needs labeled pairs'):
        run(build(), make_guided_batch(pairs=False, pseudo=False))
    run(build(consistency_weight=0), make_guided_batch(pairs=False, pseudo=False))
    with pytest.raises(TypeError, match='CISCOnline trains on a GuidedBatch, found Tensor'):
        build().loss(torch.zeros(1, 3, 33, 33), [])
    for option, words in ((dict(min_area=0), r'min_area must be in \(0, 1\], found 0'),
                          (dict(exclude=[4]), r'exclude must hold classes in 0..3, found \[4\]'),
                          (dict(consistency_weight=-1), 'consistency_weight must be >= 0, found -1'),
                          (dict(guidance=dict(similarity_range='x')), "must be 'relu' or 'affine', found 'x'")):
        with pytest.raises(ValueError, match=words):
            build(**option)


def test_values_are_never_read(build, make_guided_batch, to_meta):
    """``.item()``, ``nonzero`` and boolean masks fail on the meta device."""
    model = build(branches=[dict(augments=[dict(type='ColorJitter'), dict(type='CutMix', prob=1.0)])])
    model.begin_iter(3, seed=1, rank=0)
    losses = model.loss(**to_meta(model, make_guided_batch(pseudo=False)))
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.decode_head.conv_seg.weight.grad is not None
