"""What mmseg's own tools ask of a config (docs/stock_tools.md)."""
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS

BASES = Path(__file__).resolve().parents[2] / 'configs/_base_'


@pytest.mark.parametrize('path', sorted((BASES / 'datasets').glob('*.py')), ids=lambda path: path.stem)
def test_data_sets(path):
    cfg = Config.fromfile(path)
    # `test.py --out` sets keys in it; a list would fail there.
    assert isinstance(cfg.test_evaluator, dict) and cfg.test_evaluator.type == 'IoUMetric'
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
    assert MODELS.get(cfg.tta_model.type) is not None
    augmented = TRANSFORMS.build(cfg.tta_pipeline[1])
    assert len(augmented.subroutines) >= 4  # sizes x flips


@pytest.mark.parametrize('path', sorted((BASES / 'schedules').glob('*.py')), ids=lambda path: path.stem)
def test_schedules(path):
    # For --show and --show-dir; OpenMMLab's hook would paint every 50th image.
    hook = Config.fromfile(path).default_hooks.visualization
    assert (hook.type, hook.interval) == ('SegVisualizationHook', 1)


@pytest.mark.parametrize('name', ['pcr', 'css', 'fixmatch_ema', 'maskmatch', 'cisc_r_online'])
def test_methods_score_both_networks_and_compare_them(name):
    cfg = Config.fromfile(BASES / 'semi' / f'{name}.py')
    assert cfg.semi.eval_with == 'both' and cfg.custom_hooks[-1].type == 'TeacherBehindHook'
