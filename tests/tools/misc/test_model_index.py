"""model-index.yml and the metafiles say what the configs say, and stay up to date."""
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / 'tools/misc/model_index.py'
spec = importlib.util.spec_from_file_location('model_index', SCRIPT)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def project(tmp_path):
    """A checkout with two collections, one of them a plan without a model."""
    for name, text in {
            'configs/_base_/semi/ours.py': '# Ours (https://arxiv.org/abs/1234.56789): a method.\nsemi = dict()\n',
            'configs/ours/ours_a.py':
                "model = dict(type='PCR', backbone=dict(type='ResNet', depth=18), decode_head=dict(type='FCNHead'))\n"
                "test_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='CamVidDataset')))\n",
            'configs/ours/ours_b.py': "_base_ = './ours_a.py'\ntest_dataloader = dict(dataset=dict(_delete_=True, "
                                      "type='BaseSegDataset'))\n",
            'configs/plans/plan.py': 'self_training = dict(stages=[])\n'}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rows = [dict(config='configs/ours/ours_a.py', profile='laptop', seed=0, last=40.0),
            dict(config='configs/ours/ours_a.py', profile='laptop', seed=2, teacher_last=43.0, student_last=1.0),
            dict(config='configs/ours/ours_a.py', profile='gpu', seed=0, last=90.0)]
    (tmp_path / 'docs/benchmarks').mkdir(parents=True)
    (tmp_path / 'docs/benchmarks/camvid.json').write_text(json.dumps(dict(rows=rows)))
    return tmp_path


@pytest.fixture
def call(project, monkeypatch, capsys):
    """Function that runs the tool on the project; returns exit status, stdout, stderr."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['model_index.py', '--root', str(project), *args])
        return (tool.main(), *capsys.readouterr())

    return run


def test_entries_come_from_the_configs_and_the_rows(call, project):
    assert call()[0] == 0
    assert yaml.safe_load((project / 'model-index.yml').read_text()) == {
        'Import': ['configs/ours/metafile.yml', 'configs/plans/metafile.yml']}
    ours = yaml.safe_load((project / 'configs/ours/metafile.yml').read_text())
    assert ours['Collections'] == [{'Name': 'ours', 'License': 'Apache License 2.0',
                                    'Metadata': {'Training Data': ['CamVid', 'Custom']},
                                    'Paper': {'URL': 'https://arxiv.org/abs/1234.56789'}}]
    assert ours['Models'] == [
        {'Name': 'ours_a', 'In Collection': 'ours', 'Config': 'configs/ours/ours_a.py',
         'Metadata': {'Training Data': 'CamVid', 'Architecture': ['PCR', 'ResNet-18', 'FCNHead']},
         'Results': [{'Task': 'Semantic Segmentation', 'Dataset': 'CamVid', 'Metrics': {'mIoU': 41.5},
                      'Seeds': [0, 2]}]},
        {'Name': 'ours_b', 'In Collection': 'ours', 'Config': 'configs/ours/ours_b.py',
         'Metadata': {'Training Data': 'Custom', 'Architecture': ['PCR', 'ResNet-18', 'FCNHead']}}]
    plans = yaml.safe_load((project / 'configs/plans/metafile.yml').read_text())
    assert plans['Models'] == [{'Name': 'plan', 'In Collection': 'plans', 'Config': 'configs/plans/plan.py'}]


def test_check_tells_what_is_out_of_date_and_writes_nothing(call, project):
    assert call('--check')[0] == 1 and not (project / 'model-index.yml').exists()
    call()
    assert call('--check')[:2] == (0, '3 files are up to date\n')
    (project / 'configs/plans/plan.py').rename(project / 'configs/plans/other.py')
    status, printed, errors = call('--check')
    assert status == 1 and printed == 'configs/plans/metafile.yml is out of date\n' and 'commit' in errors
    (project / 'configs/plans/other.py').unlink()  # a folder without configs leaves the index
    assert call()[1].splitlines() == ['model-index.yml written', 'configs/plans/metafile.yml written']
    assert not (project / 'configs/plans/metafile.yml').exists() and call('--check')[0] == 0


def test_the_users_copy_of_the_template_is_no_collection(call, project):
    call()
    shutil.copytree(project / 'configs/ours', project / 'configs/mine')  # with its metafile, and equal names
    assert call('--check')[:2] == (0, '3 files are up to date\n')
    assert (project / 'configs/mine/metafile.yml').exists()


def test_mistakes_are_told_in_one_line(call, project):
    config = project / 'configs/ours/ours_a.py'
    config.rename(project / 'configs/ours/ours_c.py')
    status, _, errors = call()
    assert status == 2 and 'has rows of configs/ours/ours_a.py, which is not there' in errors.splitlines()[-1]
    (project / 'configs/plans/ours_b.py').write_text('')
    status, _, errors = call()
    assert status == 2 and 'configs/plans/ours_b.py have one name' in errors
    (project / 'configs/plans/ours_b.py').unlink()
    config.write_text('model = dict(')
    status, _, errors = call()
    assert status == 2 and f'error: {config} cannot be described: ' in errors
    assert not (project / 'model-index.yml').exists()
    for path in (project / 'configs').glob('*/*.py'):
        path.unlink()
    assert call()[0] == 2


@pytest.mark.slow
def test_the_files_of_the_repository_are_up_to_date_and_readable():
    done = subprocess.run([sys.executable, '-W', 'ignore', SCRIPT, '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    modelindex = pytest.importorskip('modelindex')  # what mim reads with
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    models = {model.config: model for model in index.models}
    assert set(models) == {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('[!_]*/**/*.py')}
    rows = json.loads((ROOT / 'docs/benchmarks/camvid.json').read_text())['rows']
    ran = {row['config'] for row in rows if row['profile'] == 'laptop'}
    assert ran and {path for path, model in models.items() if model.results} == ran  # nothing that was not run
