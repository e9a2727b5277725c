"""The contrast benchmark, run briefly as a user calls it."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_contrast_speed():
    options = dict(images=2, size=48, channels=32, classes=5, anchors=64, negatives=128, repeats=2)
    command = [sys.executable, '-W', 'ignore', 'tools/analysis_tools/contrast_speed.py', '--json']
    command += [word for name, value in options.items() for word in (f'--{name}', str(value))]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, timeout=300, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert options.items() <= result.items()
    # The same objective: the losses of independent draws agree.
    for way in ('ours', 'shared'):
        assert result[f'{way}_loss'] == pytest.approx(result['reference_loss'], rel=0.02)
        assert result[f'{way}_ms'] > 0 and result[f'{way}_extra_mb'] < 100
    assert result['ratio'] > 1 and result['baseline_mb'] > 50
