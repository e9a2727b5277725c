"""The benchmark runner: what it reads from logs, how it merges and prints rows, and that it continues."""
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'bench_camvid.py'
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT / '../shared/data/camvid'))


@pytest.fixture(scope='module')
def bench():
    """Everything that the script is made of, under one name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        modules = [importlib.import_module(f'camvid_bench.{name}')
                   for name in ('common', 'rows', 'results', 'report', 'jobs')]
    return types.SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


def made_up_row(bench, work_dir, method='pcr', profile='smoke', split='drives_24', seed=0):
    return bench.Row(method, split, seed, profile, work_dir)


def write_attempt(row, name, train, val, begin, end):
    """One mmengine folder: ``train`` iterations, ``val`` {step: (teacher, student)}, times as HH:MM:SS."""
    folder = row.dir / name
    (folder / 'vis_data').mkdir(parents=True)
    lines, text = [], [f'2026/01/01 {begin} - mmengine - INFO - \nSystem environment:\n    PyTorch: 2.1\nnoise']
    for step in train:
        lines.append(dict(loss=1., time=0.5, iter=step, step=step))
        text.append(f'2026/01/01 {end} - mmengine - INFO - Iter(train) [{step}/{row.steps}]  loss: 1')
        if step in val:
            lines.append({'mIoU': val[step][0], 'student/mIoU': val[step][1], 'step': step})
            text.append(f'2026/01/01 {end} - mmengine - INFO - Iter(val) [2/2]  mIoU: {val[step][0]}')
    (folder / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n{"loss": 0.')
    (folder / f'{name}.log').write_text('\n'.join(text) + '\n')


def row_json(method='pcr', split='drives_24', seed=0, profile='laptop', teacher=None, student=None, **kwargs):
    labels = {'drives_24': 24, 'drives_12': 12, 'all': 367}[split]
    if student is None:
        score = dict(last=teacher, best=teacher + 1)
    else:
        score = dict(teacher_last=teacher, teacher_best=teacher + 1, student_last=student, student_best=student + 2)
    return dict(method=method, labels=labels, split=split, profile=profile, seed=seed, steps=3000, **score, **kwargs)


def test_scores_of_a_row_that_was_resumed(bench, tmp_path):
    row = made_up_row(bench, tmp_path)
    half, steps = row.steps // 2, row.steps
    write_attempt(row, '20260101_000000', range(1, half + 2), {half: (9., 60.)}, '00:00:00', '00:01:00')
    assert bench.finish(row) is None
    write_attempt(row, '20260101_010000', range(half + 1, steps + 1), {steps: (41.126, 50.)}, '01:00:00', '01:00:30')
    result = bench.finish(row)
    assert result == json.loads((row.dir / 'row.json').read_text()) == row.result
    assert list(result) == ['method', 'labels', 'split', 'profile', 'seed', 'steps', 'teacher_last', 'teacher_best',
                            'student_last', 'student_best', 'config', 'command', 'log', 'seconds']
    assert [result[key] for key in ('teacher_last', 'teacher_best', 'student_last', 'student_best')] == [
        41.13, 41.13, 50., 60.]
    assert (result['labels'], result['steps'], result['seconds']) == (24, steps, 90)
    assert result['config'] == 'configs/pcr/pcr_lite0_camvid_24.py'
    records = bench.read_scalars(row.dir)
    assert [r['step'] for r in records if 'mIoU' not in r] == list(range(1, steps + 1))


def test_a_plan_counts_by_its_last_training(bench, tmp_path):
    row = made_up_row(bench, tmp_path, method='st_plusplus')
    assert [run.name for run in row.runs] == ['01_sup', '04_reliable', '06_all']
    assert made_up_row(bench, tmp_path).runs == [tmp_path / 'smoke_pcr_drives_24_seed0']
    first, _, last = (types.SimpleNamespace(dir=run, steps=row.steps) for run in row.runs)
    write_attempt(first, '20260101_000000', range(1, 11), {10: (60., 60.)}, '00:00:00', '00:01:00')
    assert bench.finish(row) is None
    write_attempt(last, '20260101_010000', range(1, 11), {5: (41., 40.), 10: (40., 41.)}, '01:00:00', '01:00:30')
    stage = dict(status='done', started='Thu Jan  1 00:02:00 2026', finished='Thu Jan  1 00:02:05 2026')
    (row.dir / 'state.json').write_text(json.dumps(dict(stages=dict(sup=stage, select=stage, all=dict(stage)))))
    result = bench.finish(row)
    assert (result['teacher_last'], result['teacher_best'], result['seconds']) == (40., 41., 60 + 30 + 5)
    log = (row.dir / 'row.log').read_text()
    assert '--- 01_sup/20260101_000000/20260101_000000.log' in log and '--- 06_all/20260101_010000/' in log


def test_profile_gpu_changes_what_a_plan_labels(bench, tmp_path):
    row = made_up_row(bench, tmp_path, method='st', profile='gpu')
    cfg = Config.fromfile(ROOT / row.config, import_custom_modules=False)
    cfg.merge_from_dict(bench.profile_options(cfg, bench.PROFILES['gpu'], seed=0))
    text = json.dumps([cfg.unlabeled.to_dict(), cfg.pseudo_pipeline])
    assert text.count('"scale": [480, 360]') == 2 and text.count('"crop_size": [320, 320]') == 1 and '240' not in text


def test_scores_without_a_teacher(bench):
    records = [dict(mIoU=50., step=5), dict(mIoU=48., step=10)]
    assert bench.scores(records, 10) == dict(last=48., best=50.)
    assert bench.scores(records, 15) is None
    assert bench.scores([], 10) is None


def test_trimmed_log_keeps_validations_and_every_hundredth_line(bench, tmp_path):
    row = made_up_row(bench, tmp_path, profile='laptop')
    write_attempt(row, '20260101_000000', range(50, row.steps + 1, 50), {500: (1., 2.), row.steps: (3., 4.)},
                  '00:00:00', '00:01:00')
    lines = bench.trim_log(row).splitlines()
    assert lines[0] == 'config: configs/pcr/pcr_lite0_camvid_24.py' and lines[1].startswith('command: python tools/')
    train = [int(n) for n in re.findall(r'Iter\(train\) \[(\d+)/', '\n'.join(lines))]
    assert train == list(range(100, row.steps + 1, 100))
    assert sum('Iter(val)' in line for line in lines) == 2
    assert '    PyTorch: 2.1' in lines and 'noise' not in lines


def test_profile_gpu_changes_size_and_schedule_everywhere(bench, tmp_path):
    row = made_up_row(bench, tmp_path, profile='gpu')
    assert row.flags[0] == '--amp'
    cfg = Config.fromfile(ROOT / row.config, import_custom_modules=False)
    laptop = cfg.train_cfg.max_iters
    start = cfg.model.start_iter
    cfg.merge_from_dict(bench.profile_options(cfg, bench.PROFILES['gpu'], seed=3))
    assert cfg.randomness.seed == 3
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler.end) == (20000, 20000)
    assert cfg.model.start_iter == round(start * 20000 / laptop)
    text = json.dumps([cfg.train_dataloader.to_dict(), cfg.val_dataloader.to_dict(), cfg.test_dataloader.to_dict()])
    assert text.count('"scale": [480, 360]') == 4 and text.count('"crop_size": [320, 320]') == 2
    assert '[240, 180]' not in text and '[160, 160]' not in text
    assert cfg.model.data_preprocessor.size == (320, 320)


def test_options_survive_the_command_line(bench, tmp_path):
    """What mmengine parses from the flags is what the runner meant."""
    from mmengine.config import DictAction
    row = made_up_row(bench, tmp_path, profile='gpu')
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg = Config.fromfile(ROOT / row.config, import_custom_modules=False)
    assert parser.parse_args(row.flags).cfg_options == bench.profile_options(cfg, bench.PROFILES['gpu'], 0)


def test_merge_replaces_the_same_row_only(bench):
    old = [row_json(teacher=40., student=39.), row_json('supervised', teacher=35.),
           row_json(seed=1, teacher=1., student=1.), row_json(split='drives_12', teacher=2., student=2.),
           row_json(profile='gpu', teacher=3., student=3.)]
    merged = bench.merge_rows(old, [row_json(teacher=50., student=49.)])
    assert len(merged) == 5
    assert [r['teacher_last'] for r in merged if 'teacher_last' in r] == [2., 50., 1., 3.]
    assert [r['method'] for r in merged] == ['pcr', 'supervised', 'pcr', 'pcr', 'pcr']


def test_table(bench):
    rows = bench.merge_rows([], [
        row_json('supervised', teacher=40.), row_json('supervised', seed=1, teacher=42.),
        row_json(teacher=46., student=45.), row_json(seed=1, teacher=50., student=47.),
        row_json('supervised', split='all', teacher=60.), row_json(split='drives_12', teacher=30., student=29.),
        row_json(profile='gpu', teacher=70., student=71.)])
    lines = bench.make_table(rows).splitlines()
    assert '### laptop (3,000 steps)' in lines and '### gpu (3,000 steps)' in lines
    assert '| supervised | 24 | 0, 1 | 41.00 ± 1.41 | 42.00 ± 1.41 | – | – |' in lines
    # Gains 6 and 8, 7 of 60 - 41; the ceiling has one seed.
    assert ('| pcr | 24 | 0, 1 | 48.00 ± 2.83 / 46.00 ± 1.41 | 49.00 ± 2.83 / 48.00 ± 1.41 | +7.00 ± 1.41 | 37 % |'
            in lines)
    assert '| supervised, all labels | 367 | 0 | 60.00 | 61.00 | – | – |' in lines
    assert '| pcr | 12 | 0 | 30.00 / 29.00 | 31.00 / 31.00 | – | – |' in lines
    assert lines.index('### laptop (3,000 steps)') < lines.index('### gpu (3,000 steps)')


def test_report_keeps_the_text_around_the_table(bench, tmp_path):
    first = row_json('supervised', teacher=40., log='logs/a.log')
    bench.write_report(tmp_path, [(first, 'log a')])
    page = tmp_path / 'camvid.md'
    page.write_text('# Mine\n' + page.read_text().split('\n', 1)[1] + 'The end.\n')
    rows = bench.write_report(tmp_path, [(row_json(teacher=41., student=40., log='logs/b.log'), 'log b')])
    assert [row['method'] for row in rows] == ['supervised', 'pcr']
    assert json.loads((tmp_path / 'camvid.json').read_text()) == {'rows': rows}
    assert (tmp_path / 'logs' / 'a.log').read_text() == 'log a' and rows[1]['log'].endswith('logs/b.log')
    text = page.read_text()
    assert text.startswith('# Mine\n') and text.endswith('The end.\n')
    assert '| pcr | 24 | 0 | 41.00 / 40.00 |' in text and '+1.00' in text
    assert text.count(bench.BEGIN) == 1 and not list(tmp_path.glob('*.part*'))
    page.write_text('no markers')
    with pytest.raises(bench.UserError, match='must hold the lines'):
        bench.write_report(tmp_path, [])


def test_a_cut_off_checkpoint_is_passed_over(bench, tmp_path):
    import torch
    assert bench.usable_checkpoint(tmp_path) is None
    torch.save(dict(a=torch.zeros(1000)), tmp_path / 'iter_500.pth')
    (tmp_path / 'iter_1000.pth').write_bytes((tmp_path / 'iter_500.pth').read_bytes()[:2000])
    assert bench.usable_checkpoint(tmp_path).name == 'iter_500.pth'


def test_a_row_is_trained_by_one_process(bench, tmp_path):
    row = made_up_row(bench, tmp_path)
    row.dir.mkdir()
    with bench.locked(row.dir, wait=False) as lock:
        assert lock is not None
        with pytest.raises(BlockingIOError, match='another process'):
            bench.Job(row, dict(os.environ))


def test_an_interrupted_row_with_other_settings_is_not_continued(bench, tmp_path):
    import torch
    row = made_up_row(bench, tmp_path)
    row.dir.mkdir()
    torch.save({}, row.dir / 'iter_5.pth')
    (row.dir / 'settings.txt').write_text(made_up_row(bench, tmp_path, seed=1).fingerprint)
    with pytest.raises(bench.UserError, match='settings have changed'):
        bench.Job(row, dict(os.environ))


def start(work_dir, *args, env=None):
    return subprocess.Popen(
        [sys.executable, str(TOOL), '--profile', 'smoke', '--work-dir', str(work_dir), '--threads', '1', *args],
        env={**os.environ, **(env or {})}, cwd=work_dir, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # A shell's background job ignores SIGINT and so would its children: CI may run as one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_missing_images(tmp_path):
    process = start(tmp_path, env={'CAMVID_ROOT': str(tmp_path / 'nowhere')})
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert f'no CamVid in {tmp_path / "nowhere"}, from the environment variable CAMVID_ROOT' in printed


def test_unknown_method(tmp_path):
    process = start(tmp_path, '--methods', 'magic')
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 2 and 'magic unknown' in printed and 'pcr' in printed


@pytest.mark.slow
def test_smoke_row_continues_after_an_interrupt(bench, tmp_path):
    if not (CAMVID / 'img_dir').is_dir():
        pytest.skip(f'no CamVid in {CAMVID}; set CAMVID_ROOT')
    process = start(tmp_path, '--methods', 'pcr')
    folder = tmp_path / 'smoke_pcr_drives_24_seed0'
    deadline = time.time() + 300
    while not bench.usable_checkpoint(folder) and time.time() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and 'the same command continues' in printed
    assert not (folder / 'row.json').exists()

    process = start(tmp_path, '--methods', 'pcr')
    printed = process.communicate(timeout=400)[0]
    assert process.returncode == 0, printed
    assert len(bench.attempts(folder)) == 2
    second = bench.text_logs(folder)[1].read_text()
    assert re.search(r'Iter\(train\) *\[ *6/10\]', second) and not re.search(r'Iter\(train\) *\[ *[1-5]/10\]', second)
    rows = json.loads((tmp_path / 'smoke' / 'camvid.json').read_text())['rows']
    assert len(rows) == 1 and rows[0]['steps'] == 10 and 0 < rows[0]['teacher_last'] <= 100
    assert '| pcr | 24 | 0 |' in (tmp_path / 'smoke' / 'camvid.md').read_text() and '| pcr | 24 | 0 |' in printed
    log = Path(rows[0]['log']).read_text()
    assert 'Iter(val)' in log and 'Prototypes from k-means' in log and len(log) < 100_000

    process = start(tmp_path, '--methods', 'pcr')
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and 'finished before' in printed and len(bench.attempts(folder)) == 2
