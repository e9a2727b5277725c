import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper

from mmseg_semi.models.segmentors.semi_encoder_decoder import step_generator
from mmseg_semi.registry import MODELS
from mmseg_semi.structures import Target, View

BRIGHT = dict(type='ColorJitter', brightness=0.5, contrast=0, saturation=0, hue=0, prob=1.0)


@pytest.fixture
def build(tiny_cfg, tmp_path):
    """Function that builds the tiny network as CISCRectify with a teacher of other weights from a file."""

    def make(teacher=True, **options):
        cfg = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'auxiliary_head', 'test_cfg')}
        cfg.update(data_preprocessor=dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor'))
        torch.manual_seed(1)
        other = MODELS.build({'type': 'CISCPair', **copy.deepcopy(cfg)})
        other.init_weights()
        torch.save(dict(state_dict=other.state_dict()), tmp_path / 'teacher.pth')
        torch.manual_seed(0)
        model = MODELS.build({'type': 'CISCRectify', **copy.deepcopy(cfg), **options})
        model.init_weights()
        if teacher:
            model.load_teacher(str(tmp_path / 'teacher.pth'))
            model.begin_iter(3, seed=0, rank=0)
        return model.train()

    return make


def run(model, batch):
    return model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))


@pytest.mark.parametrize('classes, options', [
    ((1, 2), dict()),
    ((-1, 3), dict(augments=[BRIGHT])),
    ((1, 2), dict(augments=[BRIGHT], teacher_view='weak')),
    ((1, 2), dict(average_ignored=False)),
    ((1, 2), dict(class_weight=[1, 2, 3, 4])),
    ((1, 2), dict(average_ignored=False, class_weight=[1, 2, 3, 4])),
    ((-1, -1), dict(consistency_weight=0.7)),
    ((1, 3), dict(consistency_weight=0.7)),
])
def test_a_step_equals_the_specification(build, make_guided_batch, reference, assert_same_step, classes, options):
    pairs = 'consistency_weight' in options

    def loss(model, batch):
        labeled, labels, *others = reference.read(batch['labeled'])
        images, pseudo, guides, guide_labels, shared = reference.read(batch['unlabeled'])
        strong = images
        if 'augments' in options:  # replayed by its own draws, on the images in [0, 1]
            weak = model.data_preprocessor(copy.deepcopy(batch), True)['inputs'].weak
            view = model.strong(View(weak, Target(*[pseudo] * 4)), step_generator(seed=0, rank=0, iteration=3))
            strong = model.data_preprocessor.normalize(view.images)
            assert (strong - images).abs().max() > 0.1
        with torch.no_grad():
            seen = images if options.get('teacher_view') == 'weak' else strong
            _, f_u = reference.forward(model.teacher, seen)
            _, f_g = reference.forward(model.teacher, guides)
            weight = reference.weights(f_u, pseudo, f_g, guide_labels, shared)
        if pairs:
            labeled, labels = torch.cat([labeled, others[0]]), torch.cat([labels, others[1]])
        logits, features = reference.forward(model, torch.cat([labeled, strong]))
        n = len(labeled)
        ce = F.cross_entropy(logits[0][n:], pseudo, ignore_index=255, reduction='none')
        factor = torch.ones_like(weight)
        for c, value in enumerate(options.get('class_weight', [])):
            factor[pseudo == c] = value
            factor[pseudo == 255] = 2.5
        count = factor[pseudo != 255].sum() if options.get('average_ignored') is False else factor.sum()
        total = reference.supervised([x[:n] for x in logits], labels) + (weight * ce * factor).sum() / count
        return total + 0.7 * reference.consistency(features[:n], labels, others[2]) if pairs else total

    model = build(**options)
    teacher = copy.deepcopy(model.teacher.state_dict())
    losses = assert_same_step(model, make_guided_batch(classes=classes, pairs=pairs), loss)
    assert {key for key in losses if 'loss' in key} == {
        'decode.loss_ce', 'aux.loss_ce', 'rectified.loss_ce', *(['consistency.loss'] if pairs else [])}
    assert losses['monitor.has_guide'] == sum(c >= 0 for c in classes) / 2
    assert (losses['monitor.mean_weight'] < 1) == (max(classes) >= 0)
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, teacher[name]), name


def test_the_teacher_is_no_part_of_the_model(build, make_guided_batch, tmp_path):
    model = build()
    assert not any('teacher' in name for name, _ in [*model.named_modules(), *model.named_parameters()])
    assert not any('teacher' in name for name in model.state_dict())
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
    ids = {id(p) for group in wrapper.param_groups for p in group['params']}
    assert ids == {id(p) for p in model.parameters()} and not ids & {id(p) for p in model.teacher.parameters()}
    model.eval().train()
    assert not any(module.training for module in model.teacher.modules())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    saved = torch.load(tmp_path / 'teacher.pth', weights_only=True)['state_dict']
    for _ in range(2):
        model.train_step(make_guided_batch(pairs=False), wrapper)
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    assert not torch.equal(model.decode_head.conv_seg.weight, build().decode_head.conv_seg.weight)


def test_the_weights_have_no_gradient(build, make_guided_batch):
    model = build()
    inputs = model.data_preprocessor(make_guided_batch(pairs=False), True)['inputs']
    weight = model.rectify_weight(inputs, inputs.weak)
    assert not weight.requires_grad and weight.min() >= 0 and weight.max() <= 1


def test_the_teacher_follows_device_and_layout_of_the_student(build, tmp_path):
    model = build(teacher=False).to(memory_format=torch.channels_last)
    model.load_teacher(str(tmp_path / 'teacher.pth'))
    convolution = model.teacher.decode_head.convs[0].conv.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last) and not convolution.is_contiguous()
    saved = torch.load(tmp_path / 'teacher.pth', weights_only=True)['state_dict']
    assert torch.equal(convolution, saved['decode_head.convs.0.conv.weight'])


def test_the_draws_follow_the_iteration(build, make_guided_batch):
    model, images = build(augments=[BRIGHT]), []
    inputs = model.data_preprocessor(make_guided_batch(pairs=False), True)['inputs']
    for iteration in (3, 4, 3):
        model.begin_iter(iteration, seed=0, rank=0)
        images.append(model.strong_view(inputs))
    assert torch.equal(images[0], images[2]) and not torch.equal(images[0], images[1])


def test_an_image_without_a_label_teaches_nothing(build, make_guided_batch):
    batch = make_guided_batch(pairs=False)
    for sample in batch['unlabeled']['data_samples']:
        sample.pseudo_sem_seg.data.fill_(255)
    losses = run(build(), batch)
    assert losses['rectified.loss_ce'] == 0 and losses['rectified.loss_ce'].requires_grad
    assert losses['monitor.mean_weight'] == 0
    losses['rectified.loss_ce'].backward()


def test_wrong_batches_teachers_and_options(build, make_guided_batch, tmp_path, tiny_cfg):
    model = build()
    with pytest.raises(ValueError, match='found pseudo-labels: False, guides: True'):
        run(model, make_guided_batch(pseudo=False))
    with pytest.raises(ValueError, match='found pseudo-labels: False, guides: False'):
        run(model, make_guided_batch(n_u=0))
    with pytest.raises(ValueError, match='consistency_weight=0.5 needs labeled pairs'):
        run(build(consistency_weight=0.5), make_guided_batch(pairs=False))
    with pytest.raises(RuntimeError, match='needs dict.type="FrozenTeacherHook"'):
        run(build(teacher=False), make_guided_batch())
    with pytest.raises(ValueError, match=r"move or remove labels, found \['Cutout'\]"):
        run(build(augments=[dict(type='Cutout', prob=1.0)]), make_guided_batch())
    with pytest.raises(ValueError, match="teacher_view must be 'strong' or 'weak', found 'both'"):
        build(teacher_view='both')
    with pytest.raises(ValueError, match='class_weight has 2 weights for 4 classes'):
        build(class_weight=[1, 2])
    with pytest.raises(FileNotFoundError, match='none.pth'):
        model.load_teacher(str(tmp_path / 'none.pth'))
    content = torch.load(tmp_path / 'teacher.pth', weights_only=True)
    del content['state_dict']['backbone.conv1.weight']
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth does not fit the model: 1 of .* such as backbone.conv1.weight'):
        model.load_teacher(str(tmp_path / 'other.pth'))


def test_values_are_never_read(build, make_guided_batch, to_meta):
    """``.item()``, ``nonzero`` and boolean masks fail on the meta device."""
    model = build(augments=[BRIGHT, dict(type='GaussianBlur')], consistency_weight=1.0)
    data = to_meta(model, make_guided_batch())
    model.teacher.to('meta')
    sum(value for key, value in model.loss(**data).items() if 'loss' in key).backward()
    assert model.decode_head.conv_seg.weight.grad is not None
