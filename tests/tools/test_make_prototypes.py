import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_semi.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_tool(tmp_path, tiny_pcr_cfg):
    """Function that runs a tool on the config and an untrained checkpoint of the tiny PCR; two labeled images."""
    for kind in ('img', 'ann'):
        (tmp_path / kind).mkdir()
    for i in range(2):
        label = np.kron(np.array([[0, 1], [2, 1]]), np.ones((16, 16))).astype(np.uint8)  # class 3 is absent
        cv2.imwrite(str(tmp_path / 'ann' / f'{i}.png'), label)
        cv2.imwrite(str(tmp_path / 'img' / f'{i}.jpg'), np.repeat(label[..., None] * 80, 3, axis=2))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=tuple('abcd')),
                   data_prefix=dict(img_path='img', seg_map_path='ann'), pipeline=pipeline)
    cfg = Config(dict(
        custom_imports=dict(imports=['mmseg_semi']), default_scope='mmseg', model=tiny_pcr_cfg,
        train_dataloader=dict(dataset=dict(type='SemiDataset', labeled=dataset)), val_dataloader=dict(dataset=dataset)))
    cfg.dump(str(tmp_path / 'config.py'))
    model = MODELS.build(tiny_pcr_cfg)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'checkpoint.pth')

    def run(tool, *options):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / tool), str(tmp_path / 'config.py'),
             str(tmp_path / 'checkpoint.pth'), *options], capture_output=True, text=True, check=True).stdout

    return run


@pytest.mark.slow
def test_prototypes_of_a_checkpoint(run_tool, tmp_path):
    out = run_tool('make_prototypes.py', '--out', str(tmp_path / 'prototypes.pth'))
    assert '3 of 4 classes x 2 prototypes x 12 channels' in out
    content = torch.load(tmp_path / 'prototypes.pth', weights_only=True)
    assert content['class_valid'].tolist() == [True, True, True, False]
    assert torch.isfinite(content['bank']).all() and content['bank'][:3].abs().sum() > 0


@pytest.mark.slow
def test_pseudo_label_accuracy_counts_every_pixel(run_tool):
    out = run_tool('analysis_tools/pseudo_label_accuracy.py', '--thresholds', '0', '1', '--json')
    found = json.loads(out.splitlines()[-1])
    pixels = torch.tensor(found['pixels'])
    assert pixels[0, :, 0].tolist() == [512, 1024, 512, 0]  # two images of 32 x 32
    assert torch.equal(pixels[0, :, 1], pixels[0, :, 0]) and not pixels[1, :, 1].any()  # all kept; nothing kept
    assert (pixels[0, :, 2] <= pixels[0, :, 1]).all() and 'tau 1' in out
