"""The benchmark of the unlabeled pool, run briefly as a user calls it."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path('/proc/self/smaps_rollup').exists(), reason='needs Linux, /proc/self')


def run(*options):
    command = [sys.executable, '-W', 'ignore', 'tools/analysis_tools/pool_scale.py', *map(str, options)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, text=True, timeout=300, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize('source, images, options', [('list', 50000, []), ('folder', 3000, ['--folder'])])
def test_figures(source, images, options):
    done = run('--images', images, '--workers', 2, '--samples', 2000, '--json', *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result['images'] == images - 1000 and result['worker_samples'] == 2000  # the labeled ones are left out
    # A dict per image would be 25 MB, and its copies would grow the workers.
    assert result['list_mb'] < 15 and result['list_mb'] <= result['list_peak_mb'] < 50
    assert result['worker_growth_mb'] < 5
    assert result['digest_images'] == result['images'] and 0 < result['digest_s'] < 60
    assert result['sampler_mb'] < 1.5 * result['permutation_mb'] + 0.1
    assert 0 < result['epoch_start_s'] < 60 and 0 < result['list_s'] < 60
    assert f'{source} of {images - 1000:,} images' in done.stdout


@pytest.mark.slow
def test_mistakes():
    done = run('--workers', 0)
    assert done.returncode == 2 and '--workers must be at least 1, got 0' in done.stderr
    assert 'Traceback' not in done.stderr
