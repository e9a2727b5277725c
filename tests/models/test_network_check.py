import importlib.util

import pytest

from mmseg_semi.models.network_check import check_network
from mmseg_semi.registry import MODELS

THRESHOLD = dict(type='ThresholdLabeler', threshold=0.95)
SCALES = dict(type='MultiScaleLabeler', labeler=THRESHOLD)
RESNET = dict(type='ResNet', depth=18)
FCN = dict(type='FCNHead')


@pytest.mark.parametrize('backbone,head,labeler', [
    (RESNET, FCN, THRESHOLD), (RESNET, FCN, SCALES),
    (dict(type='VisionTransformer', output_cls_token=True), dict(type='DPTHead'), SCALES),
    (dict(type='mmpretrain.VisionTransformer'), dict(type='FeatureMapDPTHead'), SCALES),
    (dict(type='BEiT'), FCN, THRESHOLD), (dict(type='BEiT'), FCN, dict(SCALES, scales=[1.0])),
    (RESNET, dict(type='STDCHead'), THRESHOLD),
])
def test_what_works_passes(backbone, head, labeler):
    check_network(backbone, head, labeler)


@pytest.mark.parametrize('backbone,head,labeler,message', [
    (RESNET, [FCN, dict(type='OCRHead')], THRESHOLD, 'found a list and num_stages=None: cascades are not supp'),
    (RESNET, dict(type='OCRHead'), THRESHOLD, 'OCRHead is the last head of a cascade'),
    (RESNET, dict(type='PIDHead'), THRESHOLD, 'PIDHead returns several maps'),
    (RESNET, dict(type='EncHead'), THRESHOLD, 'EncHead returns several maps'),
    (RESNET, dict(type='IterativeDecodeHead'), THRESHOLD, 'IterativeDecodeHead returns several maps'),
    (dict(type='mmpretrain.VisionTransformer'), dict(type='DPTHead'), THRESHOLD, "use type='FeatureMapDPTHead'"),
    (dict(type='VisionTransformer'), dict(type='DPTHead'), THRESHOLD, 'output_cls_token=True'),
    (dict(type='BEiT', img_size=640), FCN, SCALES, 'type=BEiT fits one image size, 640: set labeler.scales'),
    (dict(type='MAE'), FCN, dict(SCALES, scales=(0.5, 1.0)), r'at scales \(0.5, 1.0\), .*type=MAE'),
    (dict(type='mmpretrain.BEiTViT'), FCN, SCALES, 'BEiTViT fits one image size, 224'),
])
def test_what_cannot_work_says_why(backbone, head, labeler, message):
    with pytest.raises(ValueError, match=message):
        check_network(backbone, head, labeler)


def test_methods_that_predict_whole_images():
    check_network(RESNET, FCN, any_size=True)
    with pytest.raises(ValueError, match='predicts whole images at several scales, but .*BEiTViT fits one image size'):
        check_network(dict(type='mmpretrain.BEiTViT'), FCN, any_size=True)


def test_crops_of_a_backbone_that_knows_one_size():
    beit = dict(type='mmpretrain.BEiTViT', img_size=512)
    for crop in ((512, 512), None):
        check_network(beit, FCN, THRESHOLD, dict(type='SemiSegDataPreProcessor', size=crop))
    check_network(dict(beit, img_size=(256, 512)), FCN, THRESHOLD, dict(size=[256, 512]))
    with pytest.raises(ValueError, match=r'size is \(513, 513\), .* 512: set crop and backbone.img_size alike'):
        check_network(beit, FCN, THRESHOLD, dict(size=(513, 513)))


@pytest.mark.parametrize('kind,package,command', [
    ('mmpretrain.ConvNeXt', 'mmpretrain', 'pip install onedl-mmpretrain'),
    ('mmpretrain.TIMMBackbone', 'timm', 'pip install timm'),
])
def test_a_package_that_is_missing(monkeypatch, kind, package, command):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == package else find(name))
    with pytest.raises(ImportError, match=f'{kind} needs {package}, which is not installed: {command}'):
        check_network(dict(type=kind), FCN, THRESHOLD)


def test_the_check_comes_before_the_build(tiny_cfg):
    tiny_cfg.backbone.pop('type')
    tiny_cfg.decode_head.type = 'PIDHead'
    with pytest.raises(ValueError, match='PIDHead returns several maps'):
        MODELS.build(tiny_cfg)
