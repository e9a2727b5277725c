"""What is delivered: the wheel works away from the checkout, and mim finds the configs."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, path=None, status=0):
    """Runs a command without a network; returns what it printed."""
    env = dict(os.environ, OMP_NUM_THREADS='1', PIP_NO_INDEX='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
    env.pop('PYTHONPATH', None)
    if path is not None:
        env['PYTHONPATH'] = str(path)
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of what a clean clone holds and a build reads, so that building leaves nothing in the real one."""
    setuptools = pytest.importorskip('setuptools', reason='building needs setuptools')
    if int(setuptools.__version__.split('.')[0]) < 71:
        pytest.importorskip('wheel', reason='setuptools before 71 builds wheels with the package wheel')
    folder = tmp_path_factory.mktemp('build') / 'checkout'
    skip = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('mmseg_semi', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'requirements.txt',
                 'model-index.yml'):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(checkout, tmp_path):
    stale = checkout / 'build/lib/mmseg_semi/.mim/configs/pcr/gone.py'  # of an earlier build
    stale.parent.mkdir(parents=True)
    stale.write_text('')
    (checkout / 'tools/__pycache__').mkdir()
    (checkout / 'tools/__pycache__/litter.pyc').write_text('')
    run(sys.executable, '-m', 'pip', 'wheel', checkout, '--no-deps', '--no-build-isolation', '-w', tmp_path,
        cwd=tmp_path)
    wheel, = tmp_path.glob('mmseg_semi-*.whl')
    delivered = set(zipfile.ZipFile(wheel).namelist())
    source = {f'mmseg_semi/.mim/{path.relative_to(checkout).as_posix()}' for name in ('configs', 'tools')
              for path in (checkout / name).rglob('*') if path.is_file() and '__pycache__' not in path.parts}
    assert len(source) > 100
    assert {name for name in delivered if '/.mim/' in name} == source | {'mmseg_semi/.mim/model-index.yml'}
    assert not [name for name in delivered if name.startswith(('tests', 'build', 'configs', 'tools'))]

    site, elsewhere = tmp_path / 'site', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--target', site, wheel, cwd=elsewhere)
    mim = site / 'mmseg_semi/.mim'
    printed = run(sys.executable, '-W', 'ignore', '-c', '; '.join([
        'import mmseg_semi', 'from mmengine.config import Config', 'from mmengine.registry import init_default_scope',
        'from mmseg_semi.registry import MODELS', 'init_default_scope("mmseg")', 'print(mmseg_semi.__file__)',
        f'cfg = Config.fromfile({str(mim / "configs/pcr/pcr_tiny_shapes.py")!r})',
        'print(type(MODELS.build(cfg.model)).__name__)',
        f'print(Config.fromfile({str(mim / "configs/pcr/pcr_r101_voc.py")!r}).model.type)']), cwd=elsewhere, path=site)
    assert printed.splitlines()[-3:] == [str(site / 'mmseg_semi/__init__.py'), 'PCR', 'PCR']
    printed = run(sys.executable, '-W', 'ignore', mim / 'tools/train.py', '--help', cwd=elsewhere, path=site)
    assert 'usage: train.py' in printed
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_an_editable_installation_links_to_the_checkout(checkout, tmp_path):
    build = f'from setuptools import build_meta; print(build_meta.build_editable({str(tmp_path)!r}))'
    for _ in range(2):  # the second one finds the links of the first
        run(sys.executable, '-c', build, cwd=checkout)
    mim = checkout / 'mmseg_semi/.mim'
    assert (mim / 'configs').resolve() == checkout / 'configs' and (mim / 'tools/train.py').is_file()
    assert (mim / 'model-index.yml').is_symlink() and (checkout / 'configs/pcr/pcr_r101_voc.py').is_file()
    names = zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist()
    assert not [name for name in names if '.mim' in name]


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_wheel_needs(checkout, tmp_path):
    run(sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})',
        cwd=checkout)
    archive, = tmp_path.glob('mmseg_semi-*.tar.gz')
    shutil.unpack_archive(archive, tmp_path)
    source, = (path for path in tmp_path.iterdir() if path.is_dir())
    for name in ('configs/pcr/metafile.yml', 'tools/dist_train.sh', 'tools/predict.py', 'model-index.yml',
                 'requirements/onedl.txt', 'mmseg_semi/version.py'):
        assert (source / name).is_file(), name
    assert not list(source.rglob('__pycache__'))


def test_builds_leave_nothing_that_git_would_see():
    ignored = (ROOT / '.gitignore').read_text().splitlines()
    assert {'mmseg_semi/.mim/', 'build/', '*.egg-info/'} <= set(ignored)
