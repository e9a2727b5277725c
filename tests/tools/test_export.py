"""What tools/export.py reads, refuses and writes; stock mmseg's scores of a plain export are in test_stock_tools.py."""
import copy
import importlib
import json
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict

from mmseg_semi.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'export.py'
OWN_HEAD = dict(
    type='DeepLabV3PlusHead', in_channels=64, c1_in_channels=8, c1_channels=8, in_index=3, channels=12,
    dilations=(1, 2), num_classes=4, norm_cfg=dict(type='BN'), align_corners=True,
    loss_decode=dict(type='CrossEntropyLoss'))
CLASSES = ('sky', 'road', 'tree', 'car')


@pytest.fixture
def export(monkeypatch):
    """The modules of the tool, and `main` as the command line calls it: (exit status, stdout, stderr)."""
    monkeypatch.syspath_prepend(TOOL.parent)
    names = ('source', 'plain', 'parts', 'graph', 'output')
    return types.SimpleNamespace(**{name: importlib.import_module(f'model_export.{name}') for name in names})


@pytest.fixture
def main(export, monkeypatch, capsys):

    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return main


@pytest.fixture
def trained(tiny_cfg, tmp_path):
    """Function that writes a config around a model and a checkpoint whose teacher differs; returns their paths."""

    def write(model=None, state=None, **overrides):
        model = copy.deepcopy(dict(model or tiny_cfg))
        load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
        pipeline = [*load, dict(type='CheckSegMap', num_classes=4), dict(type='PackSegInputs')]
        cfg = dict(
            default_scope='mmseg', custom_imports=dict(imports=['mmseg_semi', 'json']), model=model,
            test_dataloader=dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                                 dataset=dict(type='CamVidDataset', data_root='data', pipeline=pipeline,
                                              data_prefix=dict(img_path='i', seg_map_path='m'))),
            val_evaluator=[dict(type='IoUMetric'), dict(type='StudentIoUMetric')],
            tta_model=dict(type='SegTTAModel'),
            tta_pipeline=[load[0], dict(type='TestTimeAug', transforms=[[load[1]], pipeline[2:3], pipeline[3:]])],
            custom_hooks=[dict(type='EMATeacherHook')], train_dataloader=dict(dataset=dict(type='SemiDataset')))
        cfg.update(overrides)
        Config(cfg).dump(str(tmp_path / 'config.py'))
        if state is None:
            network = MODELS.build(copy.deepcopy(model))
            for name, parameter in network.named_parameters():
                if name.startswith('teacher.'):
                    parameter.data.add_(0.05 * torch.randn_like(parameter))
            state = network.state_dict()
        torch.save(dict(state_dict=state, meta=dict(iter=7, dataset_meta=dict(classes=CLASSES))),
                   tmp_path / 'checkpoint.pth')
        return str(tmp_path / 'config.py'), str(tmp_path / 'checkpoint.pth')

    return write


def reference(config, checkpoint, image, **settings):
    """Logits of the whole model by mmseg's API; image uint8 BGR [H, W, 3]."""
    from mmseg.apis import inference_model, init_model
    model = init_model(config, checkpoint, device='cpu', cfg_options=dict(
        model=settings, test_pipeline=[dict(type='LoadImageFromNDArray'), dict(type='PackSegInputs')]))
    return inference_model(model, image).seg_logits.data[None]


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rgb(image):
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None].float()


# ---- what is read --------------------------------------------------------------------------------------------------


def test_the_predicting_network_is_the_default(export, trained):
    paths = trained()
    teacher, student = export.source.load(*paths, None), export.source.load(*paths, 'student')
    assert (teacher.name, student.name) == ('teacher', 'student')
    state = torch.load(paths[1])['state_dict']
    for source, prefix in ((teacher, 'teacher.'), (student, '')):
        for name, value in source.network.state_dict().items():
            assert torch.equal(value, state[prefix + name])
        assert not source.network.with_auxiliary_head and type(source.network).__name__ == 'EncoderDecoder'
    by_config = export.source.load(*paths, None, {'model.eval_with': 'student'})
    assert by_config.name == 'student'


def test_a_supervised_model_is_exported_too(export, trained, tiny_cfg):
    model = {k: v for k, v in tiny_cfg.items() if k not in ('labeler', 'branches', 'joint_forward')}
    paths = trained(dict(model, type='EncoderDecoder'))
    assert export.source.load(*paths, None).name == export.source.load(*paths, 'student').name == 'model'
    with pytest.raises(ValueError, match='--network teacher: EncoderDecoder has no teacher'):
        export.source.load(*paths, 'teacher')


def test_a_supervised_checkpoint_of_another_class_count_is_refused(export, trained, tiny_cfg):
    model = {key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'test_cfg')}
    model.update(type='EncoderDecoder', data_preprocessor=dict(tiny_cfg.data_preprocessor, type='SegDataPreProcessor'))
    paths = trained(ConfigDict(model), MODELS.build(copy.deepcopy(model)).state_dict())
    with pytest.raises(ValueError, match=r'decode_head.conv_seg.weight \(4, 12, 1, 1\), expected \(7, 12, 1, 1\)'):
        export.source.load(*paths, None, {'model.decode_head.num_classes': 7})


def test_networks_that_a_checkpoint_lacks(export, trained, tiny_cfg):
    whole = MODELS.build(copy.deepcopy(tiny_cfg)).state_dict()
    student = {name: value for name, value in whole.items() if not name.startswith('teacher.')}
    paths = trained(state=student)
    with pytest.raises(ValueError, match='checkpoint.pth holds no teacher .*--network student'):
        export.source.load(*paths, None)
    assert export.source.load(*paths, 'student').name == 'student'
    backbone = {name: value for name, value in whole.items() if 'decode_head' not in name}
    with pytest.raises(ValueError, match='lacks 7 tensors of the teacher: decode_head.conv_seg.weight.* and 1 more'):
        export.source.load(*trained(state=backbone), 'teacher')


def test_a_model_that_predicts_with_more_than_its_network_is_refused(export, trained, tiny_pcr_cfg):
    tiny_pcr_cfg.predict_with = 'prototype'
    state = MODELS.build(copy.deepcopy(tiny_pcr_cfg)).state_dict()
    state['prototype_head.initialized'].fill_(True)
    state['prototype_head.class_valid'].fill_(True)
    paths = trained(tiny_pcr_cfg, state)
    with pytest.raises(ValueError, match='PCR does not predict with its teacher alone.*predict_with=linear'):
        export.source.load(*paths, None)
    assert export.source.load(*paths, None, {'model.predict_with': 'linear'}).name == 'teacher'


# ---- plain ---------------------------------------------------------------------------------------------------------


def test_plain_config_names_parts_of_mmseg_only(export, trained):
    cfg, notes, files = export.plain.plain_config(export.source.load(*trained(), None))
    assert not files
    text = cfg.pretty_text
    for ours in ('mmseg_semi', 'CheckSegMap', 'StudentIoU', 'EMATeacher', 'ValidCross', 'CamVidDataset', 'SemiSeg'):
        assert ours not in text, ours
    assert cfg.custom_imports.imports == ['json']
    assert cfg.model.data_preprocessor.to_dict() == dict(
        type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True, size=(33, 33), size_divisor=None)
    dataset = cfg.test_dataloader.dataset
    assert dataset.type == 'BaseSegDataset' and len(dataset.metainfo.classes) == len(dataset.metainfo.palette) == 11
    assert (dataset.img_suffix, dataset.seg_map_suffix, dataset.data_prefix.img_path) == ('.jpg', '.png', 'i')
    assert [step.type for step in dataset.pipeline] == ['LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs']
    assert cfg.test_pipeline == dataset.pipeline
    assert [[step.type for step in steps] for steps in cfg.tta_pipeline[1].transforms] == [
        ['LoadAnnotations'], [], ['PackSegInputs']]
    assert cfg.test_evaluator.type == 'IoUMetric' and any('left out: StudentIoUMetric' in note for note in notes)
    assert 'train_dataloader' not in cfg and 'custom_hooks' not in cfg


def test_sync_bn_and_weights_to_load_do_not_travel(export, tiny_cfg):
    tiny_cfg.backbone.update(norm_cfg=dict(type='SyncBN'), init_cfg=dict(type='Pretrained', checkpoint='x.pth'))
    cfg = export.source.network_cfg(tiny_cfg.to_dict())
    assert cfg['backbone']['norm_cfg'] == dict(type='BN') and 'init_cfg' not in cfg['backbone']


def test_plain_refuses_what_mmseg_lacks(export, trained, tiny_cfg):
    # Every config that has this base, such as configs/maskmatch/maskmatch_r101_cityscapes_u2pl_186.py.
    base = Config.fromfile(ROOT / 'configs/_base_/models/unimatch_deeplabv3plus_r101v1c-d16_cityscapes.py')
    tiny_cfg.test_cfg = base.model.test_cfg
    paths = trained(tiny_cfg)
    as_mmseg = 'model.test_cfg.slide_average=logits model.test_cfg.slide_windows=shifted'
    with pytest.raises(ValueError, match="slide_average='prob', slide_windows='cut', which mmseg cannot do.*"
                                         f'--cfg-options {as_mmseg}, which scores differently.*The other kinds'):
        export.plain.plain_config(export.source.load(*paths, None))
    options = dict(option.split('=') for option in as_mmseg.split())
    cfg, _, _ = export.plain.plain_config(export.source.load(*paths, None, options))
    assert cfg.model.test_cfg.to_dict() == dict(mode='slide', crop_size=(801, 801), stride=(534, 534))


def test_plain_refuses_parts_that_need_more_of_us(export, trained):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomScale', scale=(8, 8)), dict(type='PackSegInputs')]
    paths = trained(test_dataloader=dict(dataset=dict(type='BaseSegDataset', pipeline=pipeline)))
    with pytest.raises(ValueError, match=r'pipeline\[1\].type is RandomScale of mmseg_semi.*The other kinds'):
        export.plain.plain_config(export.source.load(*paths, None))


def test_parts_that_stand_alone_travel_under_another_name(export):
    cfg = dict(custom_imports=dict(imports='json', allow_failed_imports=True), model=dict(decode_head=dict(OWN_HEAD)),
               test_pipeline=[dict(type='mmseg.LoadBands'), dict(type='PackSegInputs')])
    files = export.parts.take_along(cfg)
    assert [re.sub('_[0-9a-f]{8}', '', name) for name in sorted(files)] == [
        'exported_deeplabv3plus_head.py', 'exported_load_bands.py']
    assert not any('mmseg_semi' in line for text in files.values() for line in text.splitlines() if 'import' in line)
    head, bands, pack = cfg['model']['decode_head']['type'], *(step['type'] for step in cfg['test_pipeline'])
    assert re.fullmatch('DeepLabV3PlusHead_[0-9a-f]{8}', head) and bands.startswith('LoadBands_')
    assert pack == 'PackSegInputs' and any(f"name='{head}'" in text for text in files.values())
    assert cfg['custom_imports'] == dict(imports=['json', *(name[:-3] for name in files)], allow_failed_imports=True)
    assert export.parts.take_along(dict(head=dict(type='ASPPHead'))) == {}


@pytest.mark.slow
def test_a_head_of_ours_travels_with_a_plain_export(main, trained, tiny_cfg, tmp_path, monkeypatch):
    tiny_cfg.decode_head = OWN_HEAD  # update() would merge
    paths, out = trained(tiny_cfg), tmp_path / "it's moved" / 'plain'
    status, printed, error = main(*paths, 'plain', '--out', tmp_path / 'out')  # predicts where mmseg_semi is blocked
    assert (status, error) == (0, '') and re.search(r'exported_deeplabv3plus_head_\w+.py, which must stay', printed)
    out.parent.mkdir()
    (tmp_path / 'out').rename(out)
    names = sorted(path.name for path in out.iterdir())
    assert names[:2] == ['checkpoint.pth', 'config.py'] and len(names) == 3
    image = picture(40, 52)
    # Beside an imported mmseg_semi, from another place.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    assert torch.equal(reference(str(out / 'config.py'), str(out / 'checkpoint.pth'), image),
                       reference(*paths, image, eval_with='teacher'))
    status, _, error = main(out / 'config.py', out / 'checkpoint.pth', 'plain', '--out', tmp_path / 'twice')
    assert status == 2 and 'is a plain export already' in error


def test_many_bands_are_for_graphs(export, main, trained, tiny_cfg, tmp_path):
    tiny_cfg.backbone.in_channels = 5
    tiny_cfg.data_preprocessor.update(mean=[100., 90., 80., 70., 60.], std=[50., 40., 30., 20., 10.])
    paths = trained(tiny_cfg)
    status, printed, error = main(*paths, 'torchscript', '--out', tmp_path / 'net.pt')  # verified by the tool
    assert (status, error) == (0, '') and 'labels agree' in printed
    status, _, error = main(*paths, 'plain', '--out', tmp_path / 'plain')
    assert status == 2 and 'model.data_preprocessor.type is SemiSegDataPreProcessor of mmseg_semi' in error


def test_a_dataset_without_a_twin_leaves_a_place_to_fill_in(export, trained):
    dataset = dict(type='UnlabeledDataset', data_root='d', data_prefix=dict(img_path='i'), pipeline=[])
    cfg, notes, _ = export.plain.plain_config(export.source.load(*trained(test_dataloader=dict(dataset=dataset)), None))
    assert cfg.test_dataloader.dataset.type == 'BaseSegDataset'
    assert tuple(cfg.test_dataloader.dataset.metainfo.classes) == CLASSES
    assert any('mmseg has no dataset like UnlabeledDataset: before a test, set data_root' in note for note in notes)


def test_configs_without_a_test_or_with_several_sets(export, trained):
    model_only = export.plain.plain_config(export.source.load(*trained(test_dataloader=None), None))[0]
    assert 'test_dataloader' not in model_only and 'test_cfg' not in model_only
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    several = dict(type='ConcatDataset', datasets=[dict(type='BaseSegDataset', pipeline=pipeline)] * 2)
    cfg = export.plain.plain_config(export.source.load(
        *trained(test_dataloader=dict(dataset=several), test_pipeline=pipeline), None))[0]
    assert cfg.test_dataloader.dataset == several and cfg.test_pipeline == pipeline


@pytest.mark.slow
def test_a_pair_that_predicts_something_else_is_not_written(export, trained, tmp_path, monkeypatch):
    source = export.source.load(*trained(), None)
    source.network.decode_head.conv_seg.bias.data.add_(1)  # what is saved
    monkeypatch.setattr(export.plain, 'whole_logits', lambda *args: export.source.whole_logits(*args) - 1)
    with pytest.raises(ValueError, match='predicts something else with the exported pair: logits differ by 1'):
        export.plain.export_plain(source, tmp_path / 'out/plain')
    assert list((tmp_path / 'out').iterdir()) == []


# ---- graphs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('head', ['FCNHead', 'DeepLabV3PlusHead', 'PSPHead'])
def test_onnx_predicts_as_the_model_at_sizes_of_its_own(main, trained, tiny_cfg, tmp_path, head):
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    if head == 'DeepLabV3PlusHead':
        tiny_cfg.decode_head = OWN_HEAD
    if head == 'PSPHead':
        tiny_cfg.decode_head.update(type='PSPHead', pool_scales=(1, 2, 3, 6))
        del tiny_cfg.decode_head.num_convs, tiny_cfg.decode_head.concat_input
    config, checkpoint = trained(tiny_cfg)
    status, printed, _ = main(config, checkpoint, 'onnx', '--out', tmp_path / 'out/net.onnx')
    assert status == 0 and 'batches of 1 and 3, images of 96x128 and 97x75' in printed, printed
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['net.onnx']
    image = picture(58, 71)
    session = onnxruntime.InferenceSession(tmp_path / 'out/net.onnx', providers=['CPUExecutionProvider'])
    found, = session.run(None, dict(image=rgb(image).numpy()))
    expected = reference(config, checkpoint, image, eval_with='teacher')
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, reference(config, checkpoint, image, eval_with='student'), atol=1e-3)
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / 'out/net.onnx').metadata_props}
    assert json.loads(properties['classes']) == list(CLASSES) and 'channels RGB' in properties['input']


def test_graphs_say_what_their_caller_has_to_do(main, trained, tiny_cfg, tmp_path):
    tiny_cfg.data_preprocessor.test_cfg = dict(size_divisor=16)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmseg.Resize', scale=(512, 512), keep_ratio=True),
                dict(type='mmseg.LoadAnnotations'), dict(type='PackSegInputs')]
    paths = trained(tiny_cfg, test_dataloader=None, test_pipeline=pipeline)
    files = {'properties.json': ''}
    status, printed, error = main(*paths, 'torchscript', '--out', tmp_path / 'net.pt')
    assert status == 0, error
    assert ('the config prepares test images by Resize(keep_ratio=True, scale=(512, 512)), padding at the right and '
            'the bottom to size_divisor=16; the file leaves that to its caller') in printed
    torch.jit.load(tmp_path / 'net.pt', _extra_files=files)
    assert json.loads(json.loads(files['properties.json'])['before']) == [
        'Resize(keep_ratio=True, scale=(512, 512))', 'padding at the right and the bottom to size_divisor=16']


def test_the_label_of_one_channel_is_a_threshold(main, trained, tiny_cfg, tmp_path):
    del tiny_cfg.auxiliary_head
    cfg = dict(backbone=tiny_cfg.backbone, test_cfg=dict(mode='whole'), type='EncoderDecoder', decode_head=dict(
        tiny_cfg.decode_head, num_classes=2, out_channels=1, threshold=0.4,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True))
    paths = trained(cfg)
    status, printed, error = main(*paths, 'torchscript', '--out', tmp_path / 'net.pt')
    assert status == 0 and 'logits; the label is 1 where the sigmoid is above 0.4, else 0' in printed, error
    image = picture(58, 71)
    from mmseg.apis import inference_model, init_model
    expected = inference_model(init_model(*paths, device='cpu', cfg_options=dict(
        test_pipeline=[dict(type='LoadImageFromNDArray'), dict(type='PackSegInputs')])), image)
    found = torch.jit.load(tmp_path / 'net.pt')(rgb(image))[0]
    assert torch.equal((found.sigmoid() > 0.4).long(), expected.pred_sem_seg.data.long())


@pytest.mark.parametrize('cells', [2, 3, 6])
@pytest.mark.parametrize('size', [(1, 1), (5, 6), (12, 16), (13, 17), (64, 65)])
def test_grid_pools_are_adaptive_pools(export, size, cells):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(export.graph.GridPool(cells)(x), F.adaptive_avg_pool2d(x, cells))


@pytest.mark.parametrize('kernel,stride,dilation,padding', [
    (16, 16, 1, 'corner'), (14, 14, 1, 'corner'), (3, 2, 1, 'same'), (7, 4, 1, 'same'), (3, 2, 2, 'corner')])
def test_paddings_without_a_branch(export, kernel, stride, dilation, padding):
    for original in (kind(kernel, stride, dilation, padding) for kind in export.graph.PADDINGS):
        for size in ((97, 75), (96, 128), (1, 5), (16, 17)):
            x = torch.randn(1, 2, *size)
            assert torch.equal(export.graph.PlainPadding(original)(x), original(x))


def test_parts_that_a_trace_would_fix_to_one_size_are_replaced(export):
    from mmseg.models.utils import Upsample
    net = torch.nn.Sequential(
        Upsample(scale_factor=2, mode='bilinear', align_corners=True), Upsample(size=(9, 7)),
        Upsample(scale_factor=1.5), export.graph.PADDINGS[0](4, 4), export.graph.PADDINGS[1](2, 3),
        torch.nn.AdaptiveAvgPool2d(2))
    images = [torch.randn(1, 2, *size) for size in ((5, 6), (8, 3))]
    expected = [[part(image) for part in net] for image in images]
    kinds = [type(part).__name__ for part in export.graph._traceable(net)]
    assert kinds == ['PlainUpsample', 'Upsample', 'Upsample', 'PlainPadding', 'AdaptivePadding', 'GridPool']
    for image, results in zip(images, expected, strict=True):
        for part, result in zip(net, results, strict=True):
            torch.testing.assert_close(part(image), result)


@pytest.mark.parametrize('error', [RuntimeError('The size (49) must match'), IndexError('tuple (49)'),
                                   AssertionError('(49)\nand more')])
def test_networks_that_take_no_test_image_are_refused(main, trained, export, tmp_path, monkeypatch, error):
    paths = trained()

    def fail(*args):
        raise error

    monkeypatch.setattr(export.graph, 'whole_logits', fail)
    status, _, told = main(*paths, 'torchscript', '--out', tmp_path / 'net.pt')
    assert status == 2 and 'ResNet with FCNHead cannot take images of 96x128' in told
    assert '(49)' in told.splitlines()[-1] and type(error).__name__ in told.splitlines()[-1]


@pytest.mark.parametrize('kind', ['torchscript', 'torch.export'])
def test_torch_loads_what_was_exported(main, trained, tmp_path, kind):
    config, checkpoint = trained()
    out, files = tmp_path / 'net.pt2', {'properties.json': ''}
    status, printed, error = main(config, checkpoint, kind, '--out', out, '--network', 'student')
    assert status == 0 and f'{kind} of the student' in printed and 'labels agree' in printed, error
    graph = (torch.jit.load(out, _extra_files=files) if kind == 'torchscript'
             else torch.export.load(out, extra_files=files).module())
    image = picture(58, 71)
    expected = reference(config, checkpoint, image, eval_with='student')
    torch.testing.assert_close(graph(rgb(image)), expected, atol=1e-4, rtol=1e-4)
    assert json.loads(json.loads(files['properties.json'])['classes']) == list(CLASSES)


def test_torch_export_says_what_it_needs(main, trained, tmp_path, monkeypatch):
    paths = trained()
    status, _, error = main(*paths, 'torch.export', '--out', tmp_path / 'net.onnx')
    assert status == 2 and 'net.onnx: torch.export writes archives, expected a name that ends in .pt2' in error
    monkeypatch.setattr(torch.export, 'Dim', object)
    status, _, error = main(*paths, 'torch.export', '--out', tmp_path / 'net.pt2')
    assert status == 2 and f'needs torch >= 2.6 for sizes that vary, found {torch.__version__}' in error
    assert not list(tmp_path.glob('net*'))


def test_what_torch_export_cannot_trace_is_refused(export, trained, tmp_path):
    source = export.source.load(*trained(), None)

    class Branches(type(source.network.backbone)):

        def forward(self, x):
            return super().forward(x if x.mean() > 1e4 else -x)

    source.network.backbone.__class__ = Branches
    with pytest.raises(ValueError, match='no archive of torch.export of Branches with FCNHead does what PyTorch does'):
        export.graph.export_torch_export(source, tmp_path / 'out/net.pt2')
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_file_that_differs_is_not_written(export, trained, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    source = export.source.load(*trained(), None)
    write = export.graph._write_onnx

    def older_only(net, path, dynamo):
        if dynamo:
            raise RuntimeError('not\ntoday')
        write(net, path, dynamo)
        net.mean.add_(5)  # from here on PyTorch predicts something else

    monkeypatch.setattr(export.graph, '_write_onnx', older_only)
    with pytest.raises(ValueError, match='no ONNX file of ResNet with FCNHead does what PyTorch does. torch.s older '
                                         'exporter: its logits differ by .*newer exporter: RuntimeError: not$'):
        export.graph.export_onnx(source, tmp_path / 'out/net.onnx')
    assert list((tmp_path / 'out').iterdir()) == []


def test_heads_with_random_numbers(export, trained, tiny_cfg, tmp_path):
    tiny_cfg.decode_head = dict(
        type='LightHamHead', in_channels=[32, 64], in_index=[2, 3], channels=16, ham_channels=16, num_classes=4,
        ham_kwargs=dict(MD_R=4), norm_cfg=dict(type='GN', num_groups=4), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'))
    source = export.source.load(*trained(tiny_cfg), None)
    assert source.is_random
    with pytest.raises(ValueError, match='LightHamHead draws random numbers while it predicts.*kind plain'):
        export.graph.export_torchscript(source, tmp_path / 'net.pt')
    assert any('draws random numbers' in note for note in export.plain.plain_config(source)[1])


def test_a_network_of_one_size_is_refused(export, trained, tmp_path, monkeypatch):
    source = export.source.load(*trained(), None)

    class OneSize(type(source.network.backbone)):

        def forward(self, x):
            if x.shape[2:] != (96, 128):
                raise AssertionError('position embedding')
            return super().forward(x)

    source.network.backbone.__class__ = OneSize
    with pytest.raises(ValueError, match='takes images of one size only'):
        export.graph.export_torchscript(source, tmp_path / 'out/net.pt')
    assert list((tmp_path / 'out').iterdir()) == []


# ---- the command line ----------------------------------------------------------------------------------------------


def test_mistakes_end_in_one_line(main, trained, tiny_cfg, tmp_path):
    config, checkpoint = trained()
    taken = tmp_path / 'taken.onnx'
    taken.write_text('mine')
    (tmp_path / 'broken.pth').write_text('no checkpoint')
    (tmp_path / 'cut.pth').write_bytes(Path(checkpoint).read_bytes()[:5000])
    (tmp_path / 'typo.py').write_text('model = dict(type=')
    for arguments, message in (
        (('none.py', checkpoint, 'plain', '--out', 'x'), 'no config none.py'),
        ((config, 'none.pth', 'plain', '--out', 'x'), 'no checkpoint none.pth'),
        ((config, checkpoint, 'onnx', '--out', taken), f'{taken} exists already'),
        ((config, checkpoint, 'onnx', '--out', taken / 'net.onnx'), f'{taken} is a file; expected a folder'),
        ((config, tmp_path / 'broken.pth', 'onnx', '--out', 'x'), 'broken.pth cannot be read as a checkpoint'),
        ((config, tmp_path / 'cut.pth', 'onnx', '--out', 'x'), 'cut.pth cannot be read as a checkpoint'),
        ((tmp_path / 'typo.py', checkpoint, 'plain', '--out', 'x'), 'typo.py'),
        ((config, checkpoint, 'onnx', '--out', 'x', '--cfg-options', 'model.decode_head.num_classes=9'),
         'It is of 4 classes, the config of 9'),
        ((config, checkpoint, 'onnx', '--out', 'x', '--cfg-options', 'model.decode_head.type=NoHead'), 'NoHead'),
        ((config, checkpoint, 'plain', '--out', 'x', '--cfg-options', 'model.decode_head.in_index=7'),
         'the teacher cannot predict: IndexError: '),
    ):
        status, _, errors = main(*arguments)
        lines = [line for line in errors.splitlines() if line.startswith('error: ')]
        assert status == 2 and len(lines) == 1 and message in lines[0] and 'Traceback' not in errors, errors
    assert taken.read_text() == 'mine' and not Path('x').exists()


def test_an_interrupt_leaves_nothing(main, trained, tmp_path, monkeypatch, export):
    config, checkpoint = trained()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(export.graph, '_check', interrupt)
    status, _, errors = main(config, checkpoint, 'torchscript', '--out', tmp_path / 'out/net.pt')
    assert status == 130 and 'Traceback' not in errors
    assert list((tmp_path / 'out').iterdir()) == []
