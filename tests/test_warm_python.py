"""The Python that other tests start must be one, to whoever looks at it from outside."""
import os
import signal
import subprocess
import sys
import time

import pytest

if not os.environ.get('WARM_PYTHON_EXECUTABLE'):
    pytest.skip('tests run in ordinary Pythons here', allow_module_level=True)
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}
WARM = "import sys; print('mmseg' in sys.modules)"


def call(*words, env=None, **options):
    return subprocess.run([sys.executable, *words], env={**ENV, **(env or {})}, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=100, **options)


def test_a_command_runs_as_in_any_python(tmp_path):
    (tmp_path / 'beside.py').write_text('name = "beside"')
    (tmp_path / 'on_path').mkdir()
    (tmp_path / 'on_path/far.py').write_text('name = "far"')
    script = tmp_path / 'script.py'
    script.write_text('import os, sys, beside, far\n'
                      'if __name__ == "__main__":\n'
                      '    print(beside.name, far.name, sys.argv[1:], os.getcwd(), os.environ["A"], input())\n'
                      '    print("err", file=sys.stderr)\n'
                      '    sys.exit(7)')
    done = call('-W', 'ignore', str(script), '--b', 'c d', cwd='/', input='typed\n',
                env={'A': 'x', 'PYTHONPATH': str(tmp_path / 'on_path')})
    assert done.returncode == 7 and done.stdout == "beside far ['--b', 'c d'] / x typed\nerr\n"
    (tmp_path / 'package.py').write_text('import sys; print(__name__, sys.argv[1:])')
    assert call('-m', 'package', '1', cwd=tmp_path).stdout == "__main__ ['1']\n"


def test_others_packages_are_imported_and_ours_is_not():
    assert call('-c', WARM).stdout == 'True\n'
    assert call('-c', "import sys; print([n for n in sys.modules if n.startswith('mmseg_semi')])").stdout == '[]\n'


def test_the_ways_to_end():
    done = call('-c', 'import atexit; atexit.register(print, "bye"); 1 / 0')
    assert done.returncode == 1 and 'ZeroDivisionError' in done.stdout and done.stdout.endswith('bye\n')
    done = call('-c', 'raise SystemExit("no")')
    assert (done.returncode, done.stdout) == (1, 'no\n')
    assert call('-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)').returncode == -signal.SIGKILL
    assert call('-c', 'import threading, time; threading.Timer(0.2, print, ["late"]).start()').stdout == 'late\n'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_arrive(number):
    code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'
    process = subprocess.Popen([sys.executable, '-c', code], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    pid = int(process.stdout.readline())
    process.send_signal(number)
    printed = process.communicate(timeout=30)[0]
    assert process.returncode == -number
    assert ('KeyboardInterrupt' in printed) == (number == signal.SIGINT)
    deadline = time.time() + 10
    while os.path.exists(f'/proc/{pid}') and time.time() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f'/proc/{pid}')


def test_a_sitecustomize_is_imported(tmp_path):
    (tmp_path / 'sitecustomize.py').write_text('print("hello")')
    assert call('-c', WARM, env={'PYTHONPATH': str(tmp_path)}).stdout == 'hello\nFalse\n'


@pytest.mark.parametrize('case', [
    dict(env={'OMP_NUM_THREADS': '2'}), dict(env={'MALLOC_ARENA_MAX': '1'}), dict(env={'WARM_PYTHON_SOCKET': '/gone'}),
    dict(start_new_session=True)])
def test_what_a_fork_cannot_do_runs_in_an_ordinary_python(case):
    assert call('-c', WARM, **case).stdout == 'False\n'
    done = call('-I', '-c', 'import sys; print(sys.flags.isolated)', **case)
    assert done.stdout == '1\n'
