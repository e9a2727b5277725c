"""Labels of a network with random weights: kernels, workers, mirrors, memory."""
import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_semi.engine.runner import PseudoLabelStage
from mmseg_semi.registry import MODELS

STAGE = 'mmseg_semi.engine.runner.pseudo_label_stage'


@pytest.fixture
def network(tiny_cfg, tmp_path):
    """The model of config.py and model.pth, in eval mode."""
    cfg = dict(type='EncoderDecoder', **{key: tiny_cfg[key] for key in ('backbone', 'decode_head', 'test_cfg')},
               data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True,
                                      size=(33, 33)))
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'model.pth')
    Config(dict(model=cfg, default_scope='mmseg')).dump(str(tmp_path / 'config.py'))
    return model.eval()


@pytest.fixture
def make(network, data_root, tmp_path):
    """Function that makes a stage; one of its five images is larger than the others."""
    image = np.random.default_rng(2).integers(255, size=(40, 61, 3)).astype(np.uint8)
    cv2.imwrite(str(data_root / 'img/unlabeled/u/1.png'), image)

    def make(folder='label', plan_cfg=None, **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = dict(dict(scales=(0.5, 1.0, 1.5)), **options)
        return PseudoLabelStage(str(tmp_path / 'config.py'), str(tmp_path / 'model.pth'),
                                dict(data_root=str(data_root), data_prefix=dict(img_path='img/unlabeled')), **options,
                                folder=tmp_path / folder, here=tmp_path, launcher='none', env_cfg={},
                                plan_cfg=plan_cfg or {})

    return make


def flags():
    return (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
            torch.are_deterministic_algorithms_enabled())


# ---- kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('deterministic', [False, True])
def test_labels_do_not_depend_on_the_training_before(make, monkeypatch, deterministic):
    """A training sets kernels for its process; a run that goes on with the labels has had none."""
    seen = []
    monkeypatch.setattr(f'{STAGE}.predict_label', lambda *_: seen.append(flags()) or np.zeros((33, 33), np.uint8))
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', not deterministic)
    before = flags()
    make(plan_cfg=dict(randomness=dict(deterministic=deterministic))).run()
    assert set(seen) == {(False, deterministic, deterministic)} and len(seen) == 5
    assert flags() == before
