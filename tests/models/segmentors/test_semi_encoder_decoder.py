import copy

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.models.branch import step_generator
from mmseg_semi.registry import MODELS


def build(cfg):
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def sharpen(model):
    """Away from the flat predictions of a fresh network."""
    for net in (model, model.teacher):
        net.decode_head.conv_seg.weight.data.normal_(0, 0.2)
    return model


def run_loss(model, batch, iteration=0):
    model.begin_iter(iteration, seed=1, rank=0)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    return model.loss(**data)


def total(losses):
    return sum(v for k, v in losses.items() if 'loss' in k)


def reference_step(model, data):
    """FixMatch with an EMA teacher, one image and one pixel rule at a time. Draws the boxes as the model does."""
    inputs, samples = data['inputs'], data['data_samples']
    size = inputs.weak.shape[2:]

    def full(logits):
        return F.interpolate(logits, size, mode='bilinear', align_corners=True)

    with torch.no_grad():
        logits = full(model.teacher.decode_head(model.teacher.extract_feat(model.data_preprocessor.normalize(
            inputs.weak))))
        confidence, label = logits.softmax(1).max(1)
    augment, generator = model.branches[0].augments[0], step_generator(1, 0, 0)
    from mmseg_semi.structures import Target, View
    weight = ((confidence >= model.labeler.threshold) & inputs.valid).float()
    mixed = augment(View(inputs.weak, Target(label, weight, confidence, inputs.valid)), generator)
    joint = model.data_preprocessor.normalize(torch.cat([inputs.labeled, mixed.images]))
    features = model.extract_feat(joint)
    logits, aux = full(model.decode_head(features)), full(model.auxiliary_head(features))
    n = len(inputs.labeled)
    truth = torch.stack([s.gt_sem_seg.data[0] for s in samples])
    supervised = F.cross_entropy(logits[:n], truth, ignore_index=255)
    supervised = supervised + 0.4 * F.cross_entropy(aux[:n], truth, ignore_index=255)
    unsupervised, divisor = 0, 0
    for i in range(len(mixed.images)):
        for y in range(size[0]):
            for x in range(size[1]):
                divisor += int(mixed.target.valid[i, y, x])
                if mixed.target.weight[i, y, x] > 0:
                    pixel = logits[n + i, :, y, x]
                    unsupervised = unsupervised - pixel.log_softmax(0)[mixed.target.label[i, y, x]]
    return supervised + unsupervised / divisor


@pytest.mark.parametrize('joint', [True, False])
def test_teacher_moves_its_own_statistics_on_the_students_images(tiny_cfg, make_batch, joint):
    tiny_cfg.update(joint_forward=joint, branches=[dict(augments=[])])
    plain = sharpen(build(copy.deepcopy(tiny_cfg)))
    model = build({**tiny_cfg, 'teacher_bn': 'forward'})
    model.load_state_dict(plain.state_dict())
    batch = make_batch()
    inputs = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    twin = copy.deepcopy(model.teacher).train()
    with torch.no_grad():
        for images in [torch.cat([inputs.labeled, inputs.weak])] if joint else [inputs.labeled, inputs.weak]:
            twin(model.data_preprocessor.normalize(images))
    before = copy.deepcopy(model.teacher.state_dict())

    torch.manual_seed(0)
    losses = run_loss(model, batch)
    moved = [name for name, value in model.teacher.state_dict().items() if not torch.equal(value, before[name])]
    assert moved and all('running_' in name or 'num_batches' in name for name in moved)
    for (name, mine), theirs in zip(model.teacher.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)
    assert not any(module.training for module in model.teacher.modules())
    # The labels still come from the statistics before the move.
    assert losses['monitor.confidence'] == run_loss(plain, batch)['monitor.confidence']


def test_labeled_augments_change_what_the_student_sees_and_nothing_else(tiny_cfg, make_batch):
    jitter = dict(type='ColorJitter', prob=1.0)
    seen = {}
    for name, augments in dict(plain=[], jitter=[jitter], mask=[dict(type='PatchMask', block_size=8)]).items():
        model = build({**tiny_cfg, 'labeled_augments': augments, 'branches': [dict(augments=[])]})
        inputs = []
        model.backbone.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        losses = run_loss(model, make_batch())
        seen[name] = inputs[0], losses['decode.loss_ce']
    for name in ('jitter', 'mask'):
        assert not torch.equal(seen[name][0][:2], seen['plain'][0][:2]) and seen[name][1] != seen['plain'][1]
        assert torch.equal(seen[name][0][2:], seen['plain'][0][2:])  # unlabeled images
    for moving in (dict(type='RandomMirror', prob=0.), dict(type='CutMix')):
        model = build({**tiny_cfg, 'labeled_augments': [jitter, moving]})
        with pytest.raises(ValueError, match=f"move the labels, found .'ColorJitter', '{moving['type']}'"):
            run_loss(model, make_batch())


def test_teacher_without_labels_to_give_keeps_its_statistics(tiny_cfg, make_batch):
    model = build({**tiny_cfg, 'teacher_bn': 'forward', 'start_iter': 1})
    before = copy.deepcopy(model.teacher.state_dict())
    run_loss(model, make_batch())
    assert all(torch.equal(value, before[name]) for name, value in model.teacher.state_dict().items())
    with pytest.raises(ValueError, match="'running', 'forward' or 'batch', found 'copy'"):
        build({**tiny_cfg, 'teacher_bn': 'copy'})


def test_loss_and_weights_after_one_step_equal_a_slow_reference(tiny_cfg, make_batch):
    model = sharpen(build(tiny_cfg))  # teacher and student differ
    twin = copy.deepcopy(model)
    batch = make_batch()
    losses = run_loss(model, batch)
    assert 0 < losses['monitor.kept'] < 1
    expected = reference_step(twin, twin.data_preprocessor(copy.deepcopy(batch), True))
    torch.testing.assert_close(total(losses), expected, atol=1e-5, rtol=1e-5)
    for net, loss in ((model, total(losses)), (twin, expected)):
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        loss.backward()
        optimizer.step()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)
    for (name, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_separate_forwards_differ_only_through_batch_statistics(tiny_cfg, make_batch):
    joint, batch = sharpen(build(tiny_cfg)), make_batch()
    separate = copy.deepcopy(joint)
    separate.joint_forward = False
    fixed = [total(run_loss(net.eval(), batch)) for net in (joint, separate)]
    torch.testing.assert_close(*fixed)  # running statistics: the batch does not matter
    live = [total(run_loss(net.train(), batch)) for net in (joint, separate)]
    assert not torch.allclose(*live)


def test_crops_of_two_sizes(tiny_cfg, make_batch):
    """Separate forwards: each loss is that of a batch whose other images have the same size."""
    tiny_cfg.data_preprocessor.size = None
    separate = sharpen(build(copy.deepcopy({**tiny_cfg, 'joint_forward': False})))
    small, large = ((33, 33), (33, 29)), ((41, 49), (41, 45))
    of_small, of_large = make_batch(2, 3, sizes=small), make_batch(2, 3, sizes=large)
    found = run_loss(separate, dict(labeled=of_small['labeled'], unlabeled=of_large['unlabeled']))
    assert found['monitor.kept'] > 0 and found['unsup_0.loss_ce'] > 0
    for batch, keys in ((of_small, ('decode.loss_ce', 'aux.loss_ce')),
                        (of_large, ('unsup_0.loss_ce', 'monitor.kept', 'monitor.confidence'))):
        expected = run_loss(separate, batch)
        for key in keys:
            torch.testing.assert_close(found[key], expected[key], msg=key)


@pytest.mark.parametrize('options', [
    dict(),
    dict(joint_forward=False, branches=[dict(augments=[dict(type='CutMix')], labeled=True)]),
    dict(joint_forward=False, type='PCR', prototype_head=dict(num_prototypes=2, grid_size=8))],
    ids=['joint', 'labeled', 'pcr'])
def test_crops_that_meet_must_have_one_size(tiny_cfg, make_batch, options):
    tiny_cfg.data_preprocessor.size = None
    with pytest.raises(ValueError, match=r'same size: found \(3, 33, 33\) and \(3, 41, 49\)'):
        run_loss(build({**tiny_cfg, **options}), make_batch(unlabeled_sizes=((41, 49), )))


def test_student_starts_like_a_supervised_model_of_the_same_seed(tiny_cfg):
    torch.manual_seed(3)
    semi = build(copy.deepcopy(tiny_cfg))
    plain_cfg = {k: v for k, v in tiny_cfg.items() if k not in ('labeler', 'branches', 'joint_forward')}
    torch.manual_seed(3)
    plain = build(dict(plain_cfg, type='EncoderDecoder', data_preprocessor=None))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, semi.state_dict()[name]), name


def test_teacher_is_a_frozen_copy_in_eval_mode_whatever_happens(tiny_cfg):
    model = build(tiny_cfg)
    for mode in (True, False, True):
        model.train(mode)
        assert not any(m.training for m in model.teacher.modules())
        assert model.backbone.training == mode
    assert not any(p.requires_grad for p in model.teacher.parameters())
    student = model.state_dict()
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, student[name])


def test_padding_cannot_change_the_unsupervised_loss(tiny_cfg, make_batch):
    # One 1x1 convolution for each network: what lies at a pixel reaches no other one.
    model = build(dict(tiny_cfg, auxiliary_head=None, labeler=dict(type='ThresholdLabeler', threshold=0.)))
    for network in (model, model.teacher):
        network.backbone, network.decode_head = torch.nn.Identity(), torch.nn.Conv2d(3, 4, 1)
    data = model.data_preprocessor(make_batch(sizes=((33, 29), )), True)
    inputs = data['inputs']

    def loss(weak):
        model.begin_iter(0, 1, 0)
        batch = type(inputs)(inputs.labeled, weak, inputs.valid)
        step = model.new_step(batch, data['data_samples'])
        step.target = model.pseudo_label(model.teacher_forward(weak), batch)
        step.mixed = model.strong_views(step)
        model.student_views(step)
        return model.unsupervised_loss(step)['unsup_0.loss_ce']

    assert not inputs.valid[:, :, 29:].any()
    dark, bright = (torch.where(inputs.valid[:, None], inputs.weak, fill) for fill in (0., 9.))
    assert loss(dark) > 0 and torch.equal(loss(dark), loss(bright))
    assert not torch.equal(loss(dark), loss(dark + 0.1 * inputs.valid[:, None]))  # valid pixels do count


@pytest.mark.parametrize('case', ['nothing confident', 'all labels ignored', 'all padding'])
def test_empty_cases_give_exact_zeros_with_a_graph(tiny_cfg, make_batch, case):
    if case == 'nothing confident':
        tiny_cfg['labeler']['threshold'] = 1.0
    model, batch = build(tiny_cfg), make_batch()
    if case == 'all labels ignored':
        for sample in batch['labeled']['data_samples']:
            sample.gt_sem_seg.data.fill_(255)
    model.begin_iter(0, 1, 0)
    data = model.data_preprocessor(batch, True)
    if case == 'all padding':
        data['inputs'].valid.fill_(False)
    losses = model.loss(**data)
    assert torch.isfinite(total(losses))
    key = 'decode.loss_ce' if case == 'all labels ignored' else 'unsup_0.loss_ce'
    assert losses[key].item() == 0 and losses[key].requires_grad
    total(losses).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_labeled_only_phase_makes_no_pseudo_labels(tiny_cfg, make_batch):
    model = build(dict(tiny_cfg, start_iter=5))
    before = run_loss(model, make_batch(), iteration=4)
    assert not any(k.startswith(('unsup', 'monitor.kept')) for k in before)
    assert any(k.startswith('unsup') for k in run_loss(model, make_batch(), iteration=5))


def test_draws_depend_on_seed_rank_and_iteration_only(tiny_cfg, make_batch):
    model, batch = sharpen(build(tiny_cfg)).eval(), make_batch()
    first = total(run_loss(model, batch, 3))
    torch.manual_seed(99)
    assert torch.equal(first, total(run_loss(model, batch, 3)))
    assert not torch.equal(first, total(run_loss(model, batch, 4)))
    states = {tuple(torch.rand(3, generator=step_generator(*key)).tolist())
              for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}
    assert len(states) == 4


def test_only_loss_keys_are_summed(tiny_cfg, make_batch):
    losses = run_loss(build(tiny_cfg), make_batch())
    assert {k for k in losses if 'loss' in k} == {'decode.loss_ce', 'aux.loss_ce', 'unsup_0.loss_ce'}


def test_misuse_is_explained(tiny_cfg, make_batch):
    model, batch = build(tiny_cfg), make_batch()
    data = model.data_preprocessor(batch, True)
    with pytest.raises(RuntimeError, match='EMATeacherHook'):
        model.loss(**data)
    model.begin_iter(0, 0, 0)
    with pytest.raises(TypeError, match='SemiSegDataPreProcessor'):
        model.loss(torch.zeros(2, 3, 33, 33), data['data_samples'])
    small = type(data['inputs'])(data['inputs'].labeled[:, :, :20], data['inputs'].weak, data['inputs'].valid)
    with pytest.raises(ValueError, match=r'\(3, 20, 33\) and \(3, 33, 33\)'):
        model.loss(small, data['data_samples'])
    with pytest.raises(ValueError, match="'mentor'"):
        MODELS.build(dict(tiny_cfg, eval_with='mentor'))
    with pytest.raises(ValueError, match='start_iter.*-1'):
        MODELS.build(dict(tiny_cfg, start_iter=-1))
    with pytest.raises(ValueError, match=r'^branches\[1\]: loss_weight must be >= 0, found -0.5'):
        MODELS.build(dict(tiny_cfg, branches=[dict(augments=[]), dict(augments=[], loss_weight=-0.5)]))


@pytest.mark.parametrize('change, error, message', [
    (dict(unsup_loss=dict(type='PseudoLabelCrossEntropy', class_weight=[1.] * 3)), ValueError,
     'unsup_loss.class_weight has 3 weights for 4 classes'),
    (dict(unsup_loss=dict(type='PseudoLabelKLDivergence')), TypeError, 'set soft=True in the labeler'),
    (dict(labeler=dict(type='ThresholdLabeler', threshold=0, soft=True),
          branches=[dict(augments=[dict(type='CutMix')], labeled=True)]), TypeError, 'goes with plain pseudo-labels'),
])
def test_parts_of_the_unlabeled_phase_that_do_not_fit_are_told_before_training(tiny_cfg, change, error, message):
    with pytest.raises(error, match=message):
        MODELS.build({**tiny_cfg, **change, 'start_iter': 1000})


def test_views_are_tried_on_a_blank_crop_when_training_begins(tiny_cfg):
    model = MODELS.build(dict(tiny_cfg, branches=[dict(augments=[dict(type='PatchMask', block_size=32)])]))
    with pytest.raises(ValueError, match='PatchMask.block_size=32 makes one cell of a crop of 33 x 33'):
        model.begin_train(10)


@pytest.mark.parametrize('teacher_bn', ['running', 'batch', 'forward'])
def test_one_image_in_front_of_a_global_pooling(tiny_cfg, make_batch, teacher_bn):
    norm, classes = tiny_cfg.decode_head.norm_cfg, tiny_cfg.decode_head.num_classes
    tiny_cfg.decode_head = dict(type='ASPPHead', in_channels=tiny_cfg.decode_head.in_channels, channels=8,
                                dilations=(1, 2), num_classes=classes, norm_cfg=norm)
    model = MODELS.build(dict(tiny_cfg, joint_forward=False, teacher_bn=teacher_bn)).train()
    model.begin_iter(0, 0, 0)
    with pytest.raises(ValueError, match=r'the only image in the batch \(1, 3, 33, 33\): set .*sampler.counts'):
        model.loss(**model.data_preprocessor(make_batch(1, 1), True))


def test_predicts_with_teacher_student_or_both(tiny_cfg, make_batch):
    model = build(tiny_cfg).eval()
    for p in model.teacher.parameters():
        p.data.add_(torch.randn_like(p) * 0.1)
    # Logits of the two networks by hand
    image = torch.randn(1, 3, 33, 33)

    def logits_of(network):
        return F.interpolate(network.decode_head(network.extract_feat(image)), (33, 33), mode='bilinear',
                             align_corners=True)[0]

    with torch.no_grad():
        teacher, student = logits_of(model.teacher), logits_of(model)
        for who, expected in (('teacher', teacher), ('student', student), ('both', teacher)):
            model.eval_with = who
            torch.testing.assert_close(model.predict(image)[0].seg_logits.data, expected)
        from mmseg.structures import SegDataSample
        sample = SegDataSample(metainfo=dict(ori_shape=(33, 33), img_shape=(33, 33), pad_shape=(33, 33)))
        result = model.predict(image, [sample])[0]
    assert torch.equal(result.pred_sem_seg.data[0], teacher.argmax(0))
    assert torch.equal(result.student_sem_seg.data[0], student.argmax(0))
    assert model.eval_with == 'both'


def test_a_plain_checkpoint_fills_the_teacher_and_a_plain_model_loads_ours(tiny_cfg):
    model = build(tiny_cfg)
    plain = {k: torch.randn_like(v) if v.is_floating_point() else v
             for k, v in model.state_dict().items() if not k.startswith('teacher.')}
    from mmengine.runner.checkpoint import load_state_dict
    load_state_dict(model, plain)
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, plain[name])
    own = {k: v + 1 if k.startswith('teacher.') and v.is_floating_point() else v
           for k, v in model.state_dict().items()}
    load_state_dict(model, own)  # a checkpoint with a teacher keeps it
    assert torch.equal(model.teacher.state_dict()['backbone.conv1.weight'], own['teacher.backbone.conv1.weight'])
    plain_cfg = {k: v for k, v in tiny_cfg.items() if k not in ('labeler', 'branches', 'joint_forward')}
    segmentor = MODELS.build(dict(plain_cfg, type='EncoderDecoder', data_preprocessor=None))
    result = segmentor.load_state_dict(model.state_dict(), strict=False)
    assert not result.missing_keys and all(k.startswith('teacher.') for k in result.unexpected_keys)


def test_student_may_start_from_a_whole_checkpoint(tiny_cfg, tmp_path):
    torch.manual_seed(5)
    source = build(copy.deepcopy(tiny_cfg))
    state = {k: v for k, v in source.state_dict().items() if not k.startswith('teacher.')}
    torch.save(dict(state_dict=state), tmp_path / 'supervised.pth')
    model = build(dict(tiny_cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'supervised.pth'))))
    for name in ('backbone.conv1.weight', 'teacher.backbone.conv1.weight'):
        assert torch.equal(model.state_dict()[name], state['backbone.conv1.weight']), name


def test_padding_has_a_label_that_every_head_ignores_or_knows(tiny_cfg):

    def make(decode=255, auxiliary=255, padding=255):
        cfg = copy.deepcopy(tiny_cfg)
        cfg.decode_head.ignore_index, cfg.auxiliary_head.ignore_index = decode, auxiliary
        cfg.data_preprocessor.seg_pad_val = padding
        return MODELS.build(cfg)

    make(), make(padding=0), make(254, 254, 254), make(0, 0, 0)  # padding=0: it trains class 0, as published for PCR
    for index in (254, 0):
        with pytest.raises(ValueError, match=rf'decode_head.ignore_index must be 255, .*seg_pad_val.*; found {index}'):
            make(decode=index)
    with pytest.raises(ValueError, match=r'auxiliary_head\[0\].ignore_index must be 254, .*seg_pad_val.*; found 255'):
        make(254, padding=254)


def test_one_class_is_none(tiny_cfg):
    """Its softmax is 1 everywhere: every loss would be 0, and the log would show nothing of it."""
    cfg = copy.deepcopy(tiny_cfg)
    cfg.decode_head.num_classes = 1
    parts = ('backbone', 'decode_head', 'test_cfg', 'data_preprocessor')
    pair = dict({key: cfg[key] for key in parts}, type='CISCPair')
    for method in (cfg, pair):
        with pytest.raises(ValueError, match=r'num_classes is 1: .* at least two classes, so make the background one'):
            MODELS.build(method)


def test_heads_that_cannot_carry_pseudo_labels_are_refused(tiny_cfg):
    binary = copy.deepcopy(tiny_cfg)
    binary.decode_head.update(num_classes=2, out_channels=1)
    with pytest.raises(ValueError, match='out_channels is 1 for 2 classes'):
        MODELS.build(binary)
    with pytest.raises(ValueError, match='found a list'):
        MODELS.build(dict(tiny_cfg, decode_head=[tiny_cfg.decode_head] * 2))
    with pytest.raises(ValueError, match='found a ConfigDict and num_stages=2: cascades are not supported'):
        MODELS.build(dict(tiny_cfg, num_stages=2))
