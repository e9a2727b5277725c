"""Loading through mmengine, as runners, inferencers and tools do."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmseg_semi.models.checkpoint import check_shapes, prepare_state_dict
from mmseg_semi.registry import MODELS


@pytest.fixture
def logged(monkeypatch):
    """What the code logs, as (level, text)."""
    lines = []
    monkeypatch.setattr('mmseg_semi.models.checkpoint.print_log',
                        lambda text, logger=None, level=20: lines.append((level, text)))
    return lines


@pytest.fixture
def save(tmp_path):
    def save(state, name='checkpoint.pth'):
        torch.save(dict(state_dict=state), tmp_path / name)
        return str(tmp_path / name)

    return save


def plain(cfg, **overrides):
    """A supervised segmentor of the same network, with weights of its own."""
    cfg = {key: value for key, value in cfg.items() if key not in ('labeler', 'branches', 'joint_forward')}
    model = MODELS.build(dict(copy.deepcopy(cfg), type='EncoderDecoder', data_preprocessor=None, **overrides))
    return {name: torch.randn_like(value) if value.is_floating_point() else value
            for name, value in model.state_dict().items()}


def test_a_plain_checkpoint_fills_student_and_teacher_and_says_so(tiny_cfg, save, logged):
    state = plain(tiny_cfg)
    model = MODELS.build(tiny_cfg)
    load_checkpoint(model, save(state))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name.removeprefix('teacher.')]), name
    count = len(model.teacher.state_dict())
    assert logged == [(20, f'The checkpoint holds no teacher: {count} tensors of the student fill it.')]


def test_a_semi_checkpoint_keeps_its_teacher(tiny_cfg, save, logged):
    model = MODELS.build(tiny_cfg)
    state = {name: value + 1 if name.startswith('teacher.') else value for name, value in model.state_dict().items()}
    load_checkpoint(model, save(state))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert logged == []


def test_another_class_count_is_an_error_that_names_the_tensors(tiny_cfg, save):
    heads = {key: dict(tiny_cfg[key], num_classes=7) for key in ('decode_head', 'auxiliary_head')}
    path, model = save(plain({**tiny_cfg, **heads})), MODELS.build(tiny_cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_checkpoint(model, path)
    for text in ('4 tensors have another shape', 'decode_head.conv_seg.weight (7, 12, 1, 1), expected (4, 12, 1, 1)',
                 'auxiliary_head.conv_seg.bias (7,), expected (4,)', 'It is of 7 classes, the config of 4',
                 'num_classes', "prefix='backbone.'"):
        assert text in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('kind', ['CISCPair', 'SlidingEncoderDecoder'])
def test_another_class_count_is_an_error_without_a_teacher_too(tiny_cfg, save, kind):
    path = save(plain(tiny_cfg))
    for key in ('decode_head', 'auxiliary_head'):
        tiny_cfg[key].num_classes = 7
    parts = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'auxiliary_head', 'test_cfg')}
    if kind == 'CISCPair':
        parts['data_preprocessor'] = dict(tiny_cfg.data_preprocessor, type='GuidedSegDataPreProcessor')
    with pytest.raises(ValueError, match=r'decode_head.conv_seg.weight \(4, 12, 1, 1\), expected \(7, 12, 1, 1\)'):
        load_checkpoint(MODELS.build(dict(parts, type=kind)), path)


def test_the_way_out_that_the_error_names_works(tiny_cfg, save):
    state = plain({**tiny_cfg, 'decode_head': dict(tiny_cfg.decode_head, num_classes=7)})
    tiny_cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint=save(state), prefix='backbone.')
    model = MODELS.build(tiny_cfg)
    model.init_weights()
    for name in ('backbone.conv1.weight', 'teacher.backbone.conv1.weight'):
        assert torch.equal(model.state_dict()[name], state['backbone.conv1.weight'])
    assert model.decode_head.conv_seg.weight.shape[0] == 4


def test_another_width_is_an_error(tiny_cfg, save):
    other = {**tiny_cfg, 'decode_head': dict(tiny_cfg.decode_head, channels=6)}
    with pytest.raises(ValueError, match=r'decode_head.convs.0.conv.weight \(6, 64, 3, 3\), expected \(12, .*trained'):
        load_checkpoint(MODELS.build(tiny_cfg), save(plain(other)))


def test_missing_heads_are_a_warning_with_their_names(tiny_cfg, save, logged):
    state = {name: value for name, value in plain(tiny_cfg).items() if name.startswith('backbone.')}
    model = MODELS.build(tiny_cfg)
    head = model.decode_head.conv_seg.weight.clone()
    load_checkpoint(model, save(state))
    (level, text), (_, filled) = logged
    assert level == 30 and 'lacks 14 tensors' in text and 'decode_head.conv_seg.weight' in text and 'and 8 more' in text
    assert f'{len(state)} tensors of the student' in filled
    assert torch.equal(model.decode_head.conv_seg.weight, head)
    assert torch.equal(model.teacher.backbone.conv1.weight, state['backbone.conv1.weight'])


def test_a_checkpoint_of_something_else_is_an_error(tiny_cfg, save):
    state = {name.removeprefix('backbone.'): value for name, value in plain(tiny_cfg).items()
             if name.startswith('backbone.')}
    with pytest.raises(ValueError, match=r'nothing of this segmentor: found conv1.weight, .*more; expected names such '
                                         r'as backbone.conv1.weight.*model.backbone.init_cfg'):
        load_checkpoint(MODELS.build(tiny_cfg), save(state))


def test_a_wrong_class_count_also_stops_a_student_that_starts_from_a_checkpoint(tiny_cfg, save):
    state = plain({**tiny_cfg, 'decode_head': dict(tiny_cfg.decode_head, num_classes=7)})
    tiny_cfg.init_cfg = dict(type='Pretrained', checkpoint=save(state))
    with pytest.raises(ValueError, match='It is of 7 classes, the config of 4'):
        MODELS.build(tiny_cfg).init_weights()


def test_load_from_of_a_runner(tiny_cfg, save, tmp_path, monkeypatch):
    """The path that `load_from` takes; its log says that the teacher was filled."""
    state = plain(tiny_cfg)
    runner = Runner.from_cfg(Config(dict(
        model=tiny_cfg, default_scope='mmseg', work_dir=str(tmp_path), load_from=save(state),
        experiment_name='load_from_plain')))
    runner.load_or_resume()
    assert torch.equal(runner.model.teacher.backbone.conv1.weight, state['backbone.conv1.weight'])
    for handler in MMLogger.get_current_instance().handlers:
        handler.flush()
    assert 'The checkpoint holds no teacher' in next(tmp_path.glob('*/*.log')).read_text()


def vit(cfg, img_size, embed_dims=16):
    """A config with a ViT of mmpretrain, whose position embeddings fit one image size."""
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=embed_dims, num_layers=1, num_heads=2, feedforward_channels=32)
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=img_size, patch_size=14, out_indices=(0, ),
                    out_type='featmap')
    heads = dict(decode_head=dict(cfg.decode_head, in_channels=embed_dims, in_index=0), auxiliary_head=None)
    return dict(copy.deepcopy(cfg), backbone=backbone, **heads)


def test_position_embeddings_of_another_image_size_are_resized_by_their_backbone(tiny_cfg, save):
    """As when a DINOv2 that was trained at 518 is trained on, or used, at another crop."""
    state = plain(vit(tiny_cfg, 56))
    model = MODELS.build(vit(tiny_cfg, 70))
    load_checkpoint(model, save(state))
    expected = MODELS.build(dict(vit(tiny_cfg, 70)['backbone']))
    expected.load_state_dict({name.removeprefix('backbone.'): tensor for name, tensor in state.items()
                              if name.startswith('backbone.')})
    assert expected.pos_embed.shape[1] == 26 and state['backbone.pos_embed'].shape[1] == 17
    for network in (model, model.teacher):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(network.backbone.state_dict()[name], tensor), name
    again = MODELS.build(vit(tiny_cfg, 56))  # with a teacher of its own
    load_checkpoint(again, save(model.state_dict()))
    assert torch.equal(again.backbone.pos_embed, again.teacher.backbone.pos_embed)
    with pytest.raises(ValueError, match=r'backbone.pos_embed \(1, 17, 16\), expected \(1, 26, 8\)'):
        load_checkpoint(MODELS.build(vit(tiny_cfg, 70, embed_dims=8)), save(state))


def test_names_within_a_larger_module():
    """With a prefix only tensors below it are looked at; a module that has none is left alone."""
    net = nn.PReLU(2)
    net.teacher = nn.PReLU(2)
    state = {'net.weight': torch.ones(2), 'other.weight': torch.ones(5)}
    prepare_state_dict(state, 'net.', net)
    assert set(state) == {'net.weight', 'net.teacher.weight', 'other.weight'}
    assert torch.equal(state['net.teacher.weight'], torch.ones(2))
    prepare_state_dict(state, 'absent.', net)
    assert len(state) == 3


def test_numbers_that_old_checkpoints_hold_as_lists_of_one_fit():
    layer = nn.BatchNorm2d(3)
    check_shapes({'num_batches_tracked': torch.zeros(1)}, layer)
    with pytest.raises(ValueError, match=r'weight \(4,\), expected \(3,\)'):
        check_shapes({'weight': torch.zeros(4)}, layer)
