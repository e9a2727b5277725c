"""The API reference builds without a warning, names everything, and says what it needs."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(folder, python=sys.executable):
    env = dict(os.environ, PYTHON=str(python), OMP_NUM_THREADS='1')
    return subprocess.run(['bash', ROOT / 'tools/build_api.sh', folder], env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_the_reference_builds_without_warnings(tmp_path):
    pytest.importorskip('sphinx', reason="needs the extra docs: pip install -e '.[docs]'")
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    pages = {path.name for path in (tmp_path / 'html').glob('mmseg_semi*.html')}
    modules = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
               for path in (ROOT / 'mmseg_semi').rglob('*.py')}
    assert {f'{name}.html' for name in modules} == pages
    page = (tmp_path / 'html/mmseg_semi.models.segmentors.pcr.html').read_text()
    assert 'w_p L_u^pro' in page and 'mmseg_semi.models.feature_tap.FeatureTap"' in page  # a link to another module


def test_without_sphinx_it_says_what_to_install(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nexit 1\n')
    python.chmod(0o755)
    done = build(tmp_path / 'out', python)
    assert done.returncode == 2 and f'{python} -m pip install -r requirements/docs.txt' in done.stdout
    assert not (tmp_path / 'out').exists()
