"""The pooling benchmark, run briefly as a user calls it."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_pooling_cost():
    options = dict(shape=[2, 64, 41, 33], size=[161, 129], repeats=2)
    command = [sys.executable, '-W', 'ignore', 'tools/analysis_tools/pooling_cost.py', '--json']
    for name, value in options.items():
        command += [f'--{name}', *map(str, value if isinstance(value, list) else [value])]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, timeout=300, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert options.items() <= result.items()
    assert result['error'] < 1e-5 and result['gradient_error'] < 1e-5
    assert result['ours_ms'] > 0 and result['ratio'] > 1
    # The reference holds the resized features and their product with the mask, 10.6 MB each.
    assert result['resized_mb'] == 10.6
    assert result['reference_extra_mb'] > 1.5 * result['resized_mb'] > 3 * result['ours_extra_mb']
