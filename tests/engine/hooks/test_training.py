"""Hooks inside a real runner on a few generated images: the teacher's path, prototypes, resume, misuse."""
import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmseg_semi.engine.hooks import EMATeacherHook
from mmseg_semi.engine.hooks.prototype_init_hook import cluster_labeled_pixels, labeled_samples, pad_label


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


class Recorder:
    """Student, teacher and pseudo-label phase after every iteration."""

    priority = 'LOWEST'

    def __new__(cls):
        from mmengine.hooks import Hook

        class _Recorder(Hook):
            priority = 'LOWEST'

            def __init__(self):
                self.student, self.teacher, self.counts = [], [], []

            def after_train_iter(self, runner, **kwargs):
                model = runner.model
                self.student.append({k: v.clone() for k, v in model.state_dict().items()})
                self.teacher.append({k: v.clone() for k, v in model.teacher.state_dict().items()})

        return _Recorder()


@pytest.mark.parametrize('decay', [1.0, -0.1])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=rf'^EMATeacherHook.decay must be in \[0, 1\), found {decay}'):
        EMATeacherHook(decay=decay)


@pytest.mark.parametrize('buffers', ['average', 'copy'])
def test_teacher_follows_a_slow_average(make_cfg, buffers):
    cfg = make_cfg(max_iters=7, start_iter=3)
    cfg.custom_hooks[0].buffers = buffers
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    expected = None
    for i, (student, teacher) in enumerate(zip(recorder.student, recorder.teacher, strict=True)):
        s = max(i - 3, 0)
        decay = 0. if i <= 3 else min(1 - 1 / (s + 1), 0.6)
        for name, value in teacher.items():
            averaged = value.is_floating_point() and (buffers == 'average' or 'running' not in name)
            mine = decay * expected[name] + (1 - decay) * student[name] if decay and averaged else student[name]
            torch.testing.assert_close(value, mine, msg=f'iteration {i}: {name}')
        expected = teacher
    assert not torch.equal(expected['backbone.conv1.weight'], recorder.student[-1]['backbone.conv1.weight'])


def test_a_teacher_with_statistics_of_its_own(make_cfg):
    cfg = make_cfg(max_iters=5, start_iter=2)
    cfg.custom_hooks[0].buffers = 'own'
    with pytest.raises(ValueError, match="buffers='own' does not go with model.teacher_bn='running'"):
        Runner.from_cfg(copy.deepcopy(cfg)).train()
    cfg.model.teacher_bn = 'forward'
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    name = next(name for name in recorder.teacher[0] if name.endswith('running_mean'))
    same = [torch.equal(teacher[name], student[name])
            for teacher, student in zip(recorder.teacher, recorder.student, strict=True)]
    # Copies up to the first update, whose decay is 0; then one step of the same network on the same images.
    assert same == [True, True, True, True, False]
    cfg.custom_hooks[0].buffers = 'copy'
    cfg.work_dir += '_2'
    with pytest.raises(ValueError, match="buffers='copy' does not go with model.teacher_bn='forward'"):
        Runner.from_cfg(cfg).train()


def test_channels_last_trains_to_the_same_weights(make_cfg):
    states = []
    for hooks in ([], [dict(type='ChannelsLastHook')]):
        cfg = make_cfg(max_iters=3, start_iter=1)
        cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
        cfg.work_dir += str(len(hooks))
        runner = Runner.from_cfg(cfg)
        runner.train()
        states.append(runner.model.state_dict())
        for name in ('backbone.conv1.weight', 'teacher.backbone.conv1.weight'):
            assert states[-1][name].is_contiguous(memory_format=torch.channels_last) == bool(hooks)
    torch.testing.assert_close(dict(states[1]), dict(states[0]), atol=1e-4, rtol=1e-3)


def test_prototypes_are_clustered_when_the_semi_phase_starts(make_cfg):
    runner = Runner.from_cfg(make_cfg(max_iters=4, start_iter=2))
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    flags = [bool(s['prototype_head.initialized']) for s in recorder.student]
    assert flags == [False, False, True, True]
    assert recorder.student[-1]['prototype_head.class_valid'].all()
    assert not torch.equal(recorder.student[2]['prototype_head.bank'], recorder.student[3]['prototype_head.bank'])


def test_prototypes_of_padded_inputs(make_cfg):
    """With 1x1 convolutions padding at test time changes no feature, so it must not change the prototypes."""
    banks = []
    for pad in (None, dict(size=(48, 40))):
        cfg = make_cfg(f'pad{bool(pad)}')
        cfg.model.data_preprocessor.test_cfg = pad
        cfg.model.auxiliary_head = None
        model = Runner.from_cfg(cfg).model
        torch.manual_seed(0)
        model.extract_feat = lambda x: x
        model.decode_head.forward = lambda x, head=model.decode_head: head.conv_seg(x.repeat(1, 4, 1, 1))
        banks.append(cluster_labeled_pixels(model, cfg, seed=0)[0])
    assert banks[0].any()
    torch.testing.assert_close(banks[1], banks[0])
    label = pad_label(torch.zeros(66, 66), (33, 33), (48, 40))
    assert label.shape == (96, 80) and not label[:66, :66].any()
    assert (label[66:] == 255).all() and (label[:, 66:] == 255).all()


def test_prototypes_of_a_labeled_set_inside_wrappers(make_cfg):
    banks = []
    for wrap in (False, True):
        cfg = make_cfg(f'wrapped{wrap}')
        labeled, unlabeled = cfg.train_dataloader.dataset.labeled, cfg.train_dataloader.dataset.unlabeled
        if wrap:  # SemiDataset takes no wrapper, mmengine's ConcatDataset does
            halves = [dict(labeled, indices=indices) for indices in ([0, 1, 2], [3, 4, 5])]
            repeated = [dict(type='RepeatDataset', times=2, dataset=half) for half in halves]
            labeled = dict(type='ConcatDataset', datasets=repeated)
            cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[labeled, unlabeled], ignore_keys=[
                'classes', 'palette', 'label_map', 'reduce_zero_label'])
        runner = Runner.from_cfg(cfg)
        torch.manual_seed(0)
        runner.model.init_weights()
        assert len(runner.train_dataloader.dataset.datasets[0]) == (12 if wrap else 6)
        banks.append(cluster_labeled_pixels(runner.model, runner.cfg, seed=0)[0])
    assert banks[0].any() and torch.equal(*banks)


def test_a_class_that_the_head_ignores_gets_no_prototypes(make_cfg):
    cfg = make_cfg()
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.ignore_index = 3
    cfg.model.data_preprocessor.update(seg_pad_val=3, test_cfg=dict(size=(48, 40)))
    model = Runner.from_cfg(cfg).model
    assert cluster_labeled_pixels(model, cfg, seed=0)[1].tolist() == [True, True, True, False]
    assert (pad_label(torch.zeros(2, 2), (2, 2), (3, 3), 3)[2] == 3).all()


def test_a_stopped_run_resumes_to_the_same_weights(make_cfg):
    whole = train(make_cfg('whole', max_iters=6)).model.state_dict()
    stopped = make_cfg('stopped', max_iters=6)
    stopped.train_cfg.max_iters = 3
    train(stopped)
    again = make_cfg('stopped', max_iters=6)
    again.resume = True
    runner = train(again)
    resumed = runner.model.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)
    assert bool(resumed['prototype_head.initialized'])
    saved = torch.load(f'{again.work_dir}/iter_6.pth', weights_only=False)
    assert saved['ema_teacher'] == {'updates': 4}  # iterations 2..5


def test_with_replay_random_crops_and_dropout_resume_too(make_cfg):
    """As docs/own_data.md tells it; the stopped run reads with other numbers of workers."""

    def make(work_dir, workers=0):
        cfg = make_cfg(work_dir, max_iters=6)
        for source in cfg.train_dataloader.dataset.labeled, cfg.train_dataloader.dataset.unlabeled:
            source.pipeline[-1:-1] = [dict(type='RandomCrop', crop_size=(29, 29)), dict(type='RandomFlip', prob=0.5)]
        cfg.model.decode_head.dropout_ratio = 0.2
        cfg.train_dataloader.num_workers = workers
        cfg.train_dataloader.sampler = dict(type='ReplaySampler', sampler=cfg.train_dataloader.sampler)
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='ReplayHook')]
        return cfg

    whole = train(make('whole')).model.state_dict()
    stopped = make('stopped', workers=2)
    stopped.train_cfg.max_iters = 3
    train(stopped)
    again = make('stopped', workers=1)
    again.resume = True
    for name, tensor in train(again).model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def css(cfg):
    cfg.model.update(
        type='CSS', teacher_bn='batch', joint_forward=False, ramp_iters=10, warmup_iters=4, variant='cross',
        representation_head=dict(channels=8, out_channels=6), num_anchors=8, num_negatives=8,
        unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=0.3), contrast_threshold=0.3)
    cfg.custom_hooks = [dict(cfg.custom_hooks[0], buffers='own')]


def mask_match(cfg):
    cfg.model.type = 'SemiEncoderDecoder'
    cfg.model.labeler = dict(type='MultiScaleLabeler', labeler=dict(type='ThresholdLabeler', threshold=0.))
    cfg.model.branches.append(dict(augments=[dict(type='PatchMask', block_size=8)], update_bn=False))
    cfg.custom_hooks = cfg.custom_hooks[:1]


@pytest.mark.parametrize('change, moved', [(css, 'prototypes'), (mask_match, 'teacher.backbone.conv1.weight')])
def test_other_stopped_runs_resume_to_the_same_weights(make_cfg, change, moved):

    def make(work_dir):
        cfg = make_cfg(work_dir, max_iters=6)
        del cfg.model['prototype_head']
        change(cfg)
        return cfg

    whole = train(make('whole')).model.state_dict()
    stopped = make('stopped')
    stopped.train_cfg.max_iters = 3
    half = train(stopped).model.state_dict()
    again = make('stopped')
    again.resume = True
    resumed = train(again).model.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)
    assert not torch.equal(half[moved], resumed[moved])
    assert change is mask_match or resumed['prototype_seen'].all()


def test_load_from_keeps_a_teacher_and_fills_a_missing_one(make_cfg, tmp_path):
    state = train(make_cfg('first', max_iters=6)).model.state_dict()
    path = f"{make_cfg('first').work_dir}/iter_6.pth"
    for name, drop in (('with', False), ('without', True), ('bare', False)):
        checkpoint = torch.load(path, weights_only=False)
        if drop:
            checkpoint['state_dict'] = {k: v for k, v in checkpoint['state_dict'].items() if 'teacher' not in k}
        if name == 'bare':  # what torch.save(model.state_dict()) leaves
            checkpoint = checkpoint['state_dict']
        torch.save(checkpoint, tmp_path / f'{name}.pth')
        runner = Runner.from_cfg(make_cfg(name, load_from=str(tmp_path / f'{name}.pth')))
        runner.load_or_resume()
        key = 'backbone.conv1.weight'
        expected = state[key] if drop else state[f'teacher.{key}']
        assert torch.equal(runner.model.teacher.state_dict()[key], expected)
        hook = next(h for h in runner.hooks if type(h).__name__ == 'EMATeacherHook')
        assert hook.updates == dict(without=0, bare=round(1 / (1 - hook.decay))).get(name, 4)


def test_gradient_accumulation_moves_the_teacher_once_per_optimizer_step(make_cfg):
    runner = Runner.from_cfg(make_cfg(max_iters=6, start_iter=0, **{'optim_wrapper.accumulative_counts': 3}))
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    weights = [t['decode_head.conv_seg.weight'] for t in recorder.teacher]
    changed = [not torch.equal(a, b) for a, b in zip(weights[:-1], weights[1:], strict=True)]
    assert changed == [False, True, False, False, True]


def test_validation_reports_teacher_and_student(make_cfg):
    scalars = train(make_cfg()).message_hub.log_scalars
    assert {'val/mIoU', 'val/student/mIoU'} <= set(scalars)


@pytest.mark.parametrize('overrides,error,words', [
    ({'train_dataloader.batch_size': 5}, ValueError, r'batch_size is 5.*counts=\(2, 2\).*sum to 4'),
    ({'train_dataloader.sampler.infinite': False}, ValueError, 'IterBasedTrainLoop.*infinite=False'),
    ({'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)}, ValueError,
     'EpochBasedTrainLoop.*infinite=True'),
    ({'train_dataloader.sampler': dict(_delete_=True, type='InfiniteSampler')}, TypeError, 'LabeledUnlabeledSampler'),
    ({'model.start_iter': 6}, ValueError, 'start_iter=6.*6 iterations'),
])
def test_a_feed_that_cannot_work_is_refused_before_the_first_step(make_cfg, overrides, error, words):
    runner = Runner.from_cfg(make_cfg(**overrides))
    with pytest.raises(error, match=words):
        runner.train()
    assert runner.iter == 0


def test_epoch_loop(make_cfg):
    cfg = make_cfg(**{
        'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2),
        'train_dataloader.sampler.infinite': False, 'log_processor.by_epoch': True,
        'default_hooks.checkpoint.by_epoch': True, 'default_hooks.checkpoint.interval': 1})
    assert train(cfg).iter == 8


def test_prototype_file(make_cfg, tmp_path):
    cfg = make_cfg(max_iters=3, start_iter=1)
    missing = str(tmp_path / 'none.pth')
    cfg.custom_hooks[1].file = missing
    with pytest.raises(FileNotFoundError, match='none.pth.*make_prototypes.py'):
        Runner.from_cfg(cfg).train()
    bank = torch.rand(4, 2, 12)
    torch.save(dict(bank=bank, class_valid=torch.ones(4, dtype=torch.bool)), missing)
    cfg.experiment_name += '_'
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    first = recorder.student[0]['prototype_head.bank']
    assert recorder.student[0]['prototype_head.initialized'] and (first - bank).abs().max() < 0.1
    assert not torch.equal(first, bank)  # labeled pixels already moved it


def test_a_bad_prototype_file_is_named(make_cfg, tmp_path):
    path = tmp_path / 'prototypes.pth'

    def saved(bank, **other):
        torch.save(dict(bank=bank, **other), path)
        return path.read_bytes()

    all_valid = dict(class_valid=torch.ones(4, dtype=torch.bool))
    good = saved(torch.rand(4, 2, 12), **all_valid)
    for content, words in (
        (b'', r'cannot be read \(EOFError\)'),
        (good[:len(good) // 2], r'cannot be read \(RuntimeError\).*make_prototypes.py'),
        (pickle.dumps(Path()), r'cannot be read \(UnpicklingError\).*make_prototypes.py'),
        (saved(torch.zeros(1)), r"the tensors bank and class_valid, found \['bank'\]"),
        (saved([0.], class_valid=[True]), r"the tensors bank and class_valid, found \['bank', 'class_valid'\]"),
        (saved(torch.zeros(3, 2, 12), **all_valid), r'\(4, 2, 12\) and 4 flags, found \(3, 2, 12\) and \(4,\)'),
        (saved(torch.full((4, 2, 12), float('nan')), **all_valid), '96 values that are not finite'),
    ):
        path.write_bytes(content)
        cfg = make_cfg(max_iters=3)
        cfg.custom_hooks[1].file = str(path)
        with pytest.raises(ValueError, match=f'^prototypes: {path}: .*{words}'):
            Runner.from_cfg(cfg).train()


def test_a_prototype_file_wins_over_load_from_and_is_not_needed_to_resume(make_cfg, tmp_path):
    path = tmp_path / 'prototypes.pth'
    bank = torch.rand(4, 2, 12)
    torch.save(dict(bank=bank, class_valid=torch.ones(4, dtype=torch.bool)), path)

    def make(work_dir):
        cfg = make_cfg(work_dir, start_iter=1)
        cfg.custom_hooks[1].file = str(path)
        return cfg

    whole = make('whole')
    recorder, runner = Recorder(), Runner.from_cfg(whole)
    runner.register_hook(recorder)
    runner.train()
    stopped = make('stopped')
    stopped.train_cfg.max_iters = 3
    train(stopped)
    again = make('stopped')
    other = make('other')
    other.update(load_from=f'{again.work_dir}/iter_3.pth')
    started = Runner.from_cfg(other)
    started.register_hook(loaded := Recorder())
    started.train()
    assert (loaded.student[0]['prototype_head.bank'] - bank).abs().max() < 0.1  # labeled pixels moved it a little
    trained = recorder.student[2]['prototype_head.bank']
    assert (loaded.student[0]['prototype_head.bank'] - bank).norm() < (trained - bank).norm()
    path.unlink()
    again.resume = True
    resumed = train(again).model.state_dict()
    for name, tensor in recorder.student[-1].items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)


def test_pcr_without_the_hook_that_makes_its_prototypes_is_refused(make_cfg):
    train(make_cfg('first', max_iters=3))
    cfg = make_cfg('second', max_iters=3, start_iter=0)
    cfg.custom_hooks = cfg.custom_hooks[:1]
    runner = Runner.from_cfg(copy.deepcopy(cfg))
    with pytest.raises(ValueError, match=r"PCR needs a PrototypeInitHook.*add dict\(type='PrototypeInitHook'\)"):
        runner.train()
    assert runner.iter == 0
    cfg.experiment_name += '_'
    cfg.load_from = f"{make_cfg('first').work_dir}/iter_3.pth"  # brings prototypes
    assert train(cfg).model.prototype_head.initialized


def test_prototypes_see_labeled_images_through_a_wrapped_validation_set(make_cfg, data_root):
    cfg = make_cfg(start_iter=0, max_iters=1)
    part = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, copy.deepcopy(part)])
    assert train(copy.deepcopy(cfg)).model.prototype_head.initialized
    for one in cfg.val_dataloader.dataset.datasets:
        one.pop('pipeline')
    with pytest.raises(ValueError, match='val_dataloader.dataset has no pipeline'):
        list(labeled_samples(cfg))


def test_a_broken_labeled_image_is_named_while_pixels_are_clustered(make_cfg, data_root):
    cfg = make_cfg(start_iter=0, max_iters=1)
    (data_root / 'img/train/4.png').write_bytes(b'')
    with pytest.raises(ValueError, match='cannot make a sample of .*img/train/4.png and '):
        train(cfg)


def test_a_file_of_prototypes_does_not_hide_a_wrong_list_of_classes(make_cfg, tmp_path):
    torch.save(dict(bank=torch.rand(4, 2, 8), class_valid=torch.ones(4, dtype=torch.bool)), tmp_path / 'p.pth')
    cfg = make_cfg(start_iter=0, max_iters=1)
    cfg.custom_hooks[1].file = str(tmp_path / 'p.pth')
    cfg.train_dataloader.dataset.labeled.metainfo.classes = ('a', 'b', 'c', 'd', 'e')
    with pytest.raises(ValueError, match='the labeled set has 5 classes, decode_head.num_classes is 4'):
        train(cfg)


def test_a_preprocessor_of_plain_batches_is_refused(make_cfg):
    cfg = make_cfg(start_iter=0, max_iters=1, **{'model.data_preprocessor.type': 'SegDataPreProcessor'})
    with pytest.raises(TypeError, match="data_preprocessor is a SegDataPreProcessor, .* 'SemiSegDataPreProcessor'"):
        train(cfg)


def test_hooks_refuse_a_plain_segmentor(make_cfg):
    cfg = make_cfg()
    for key in ('labeler', 'branches', 'prototype_head', 'joint_forward', 'start_iter', 'eval_with'):
        cfg.model.pop(key)
    cfg.model.type = 'EncoderDecoder'
    with pytest.raises(TypeError, match='SemiEncoderDecoder, found EncoderDecoder'):
        Runner.from_cfg(cfg).train()


def test_kept_share_near_zero_is_told(make_cfg, caplog):
    cfg = make_cfg(start_iter=0, **{'model.labeler.threshold': 1.0, 'log_level': 'INFO'})
    runner = Runner.from_cfg(cfg)
    runner.train()
    log = next(Path(runner.work_dir).glob('*/*.log')).read_text()
    assert 'kept only 0.00%' in log and 'labeler.threshold' in log


def test_student_metric_needs_both(make_cfg):
    cfg = make_cfg(**{'model.eval_with': 'teacher'})
    with pytest.raises(ValueError, match="eval_with='both'"):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('change, times', [
    ({}, 0), ({'val_evaluator': dict(type='IoUMetric')}, 1),
    ({'val_evaluator': dict(type='IoUMetric'), 'model.eval_with': 'teacher'}, 0)])
def test_a_student_that_predicts_for_nobody_is_told_once(make_cfg, change, times):
    cfg = make_cfg(**{key: value for key, value in change.items() if key != 'val_evaluator'})  # merging adds to lists
    cfg.val_evaluator = change.get('val_evaluator', cfg.val_evaluator)
    train(cfg)  # validates twice
    log = next(Path(cfg.work_dir).glob('*/*.log')).read_text()
    words = "nothing scores the student: add dict(type='StudentIoUMetric', iou_metrics=['mIoU']) to val_evaluator"
    assert log.count(words) == times


def test_unlabeled_masks_do_not_matter(make_cfg, data_root):
    state = train(make_cfg('clean', max_iters=3, start_iter=0)).model.state_dict()
    for i in range(8):  # masks appear, and they are garbage
        (data_root / 'ann' / 'unlabeled' / f'{i}.png').write_bytes(b'not a mask')
    again = train(make_cfg('garbage', max_iters=3, start_iter=0)).model.state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)


@pytest.mark.parametrize('change,words', [
    (lambda cfg: cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None), 'no val_dataloader'),
    (lambda cfg: cfg.val_dataloader.dataset.pipeline.__delitem__(slice(1, 3)), 'no LoadAnnotations'),
    (lambda cfg: cfg.train_dataloader.dataset.labeled.metainfo.update(classes=('a', 'b')), '2 classes.*4'),
])
def test_what_would_stop_the_prototypes_halfway_is_found_before_training(make_cfg, change, words):
    cfg = make_cfg()
    change(cfg)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=words):
        runner.train()
    assert runner.iter == 0
