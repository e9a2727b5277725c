import os
import subprocess
import sys

import pytest

from mmseg_semi.files import whole, write_text


def test_appears_at_the_end_of_the_block(tmp_path):
    path = tmp_path / 'new' / 'a.png'
    with whole(path) as part:
        assert part.suffix == '.png' and part.parent == path.parent and part.name.startswith('.')
        part.write_bytes(b'half')
        assert not path.exists()
        part.write_bytes(b'whole')
    assert path.read_bytes() == b'whole' and os.listdir(path.parent) == ['a.png']


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(path, 'old, ä')
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        part.write_text('half')
        raise KeyboardInterrupt
    assert path.read_text(encoding='utf-8') == 'old, ä' and os.listdir(tmp_path) == ['a.txt']


def test_a_block_that_writes_nothing_fails(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / 'a.txt'):
        pass
    assert not os.listdir(tmp_path)


def test_a_killed_process_leaves_no_half_file(tmp_path):
    code = ('import os, signal, runpy, pathlib\n'
            f'files = runpy.run_path({str(sys.modules[whole.__module__].__file__)!r})\n'
            f'with files["whole"](pathlib.Path({str(tmp_path / "a.txt")!r})) as part:\n'
            '    part.write_text("half"); os.kill(os.getpid(), signal.SIGKILL)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == -9
    left = os.listdir(tmp_path)
    assert len(left) == 1 and left[0].startswith('.a.txt.') and '.part' in left[0]
