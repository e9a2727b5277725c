"""Training of the CamVid benchmark: processes, their progress, what they resume from."""
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Sequence

from camvid_bench.common import ROOT, UserError, locked
from camvid_bench.results import attempts, finish, read_scalars
from camvid_bench.rows import Row
from mmseg_semi.engine.runner.state import usable_checkpoint
from mmseg_semi.files import write_text


class Job:
    """A row in training.

    Args:
        row (Row): What to train.
        env (dict): Environment of the process.

    Raises:
        BlockingIOError: If another process trains this row.
        UserError: If the row was interrupted and its settings have changed since.
    """

    def __init__(self, row: Row, env: dict) -> None:
        self.row, self.start = row, time.time()
        row.dir.mkdir(parents=True, exist_ok=True)
        # The training process inherits the lock, so an orphan of a killed runner is not joined by a second one.
        with locked(row.dir, wait=False) as lock:
            if lock is None:
                raise BlockingIOError(f'{row.name} is being trained by another process')
            checkpoint = usable_checkpoint(row.dir)
            settings = row.dir / 'settings.txt'
            begun = checkpoint or (row.dir / 'state.json').is_file()
            if begun and settings.is_file() and settings.read_text() != row.fingerprint:
                raise UserError(f'{row.dir} holds an interrupted row whose settings have changed since (another config '
                                'or profile): delete that folder to start over, or give another --work-dir')
            write_text(settings, row.fingerprint)
            resume = ['--resume'] if checkpoint else []
            with open(row.dir / 'output.txt', 'a') as output:
                self.process = subprocess.Popen([sys.executable, *row.command, *resume], cwd=ROOT, env=env,
                                                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                                pass_fds=(lock, ))

    def progress(self) -> str:
        """One line: iteration, rate, time left."""
        run = next((run for run in reversed(self.row.runs) if attempts(run)), self.row.runs[0])
        train = [r for r in read_scalars(run) if 'mIoU' not in r]
        name = f'{self.row.method} {self.row.split} seed {self.row.seed}'
        if len(self.row.runs) > 1:
            name += f', training {self.row.runs.index(run) + 1} of {len(self.row.runs)}'
        if not train:
            return f'{name}: starting ({time.time() - self.start:.0f} s)'
        done, each = train[-1]['step'], train[-1].get('time', 0)
        bar = '#' * round(20 * done / self.row.steps)
        left = max((self.row.steps - done) * each, 0)
        rate = f'{1 / each:.2f} it/s, {_clock(left)} left' if each else ''
        return f'{name}: [{bar:.<20}] {done}/{self.row.steps} {rate}'

    def stop(self) -> None:
        """Ends the process and its workers; what it saved before stays."""
        for name, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return


def _clock(time_left: float) -> str:
    minutes = round(time_left / 60)
    return f'{minutes // 60} h {minutes % 60:02d} min' if minutes >= 60 else f'{minutes} min'


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a line a minute."""

    def __init__(self) -> None:
        self.tty, self.last = sys.stderr.isatty(), 0.

    def show(self, text: str) -> None:
        if self.tty:
            sys.stderr.write(f'\r\x1b[K{text[:os.get_terminal_size(2).columns - 1]}')
            sys.stderr.flush()
        elif time.time() - self.last >= 60:
            self.last = time.time()
            self.say(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        print(('\r\x1b[K' if self.tty else '') + text, file=sys.stderr, flush=True)


def run_rows(rows: Sequence[Row], jobs: int, env: dict, done) -> bool:
    """Trains the rows that are not finished.

    Args:
        rows (Sequence[Row]): In order.
        jobs (int): How many at a time.
        env (dict): Environment of the training processes.
        done (Callable[[Row], None]): Called after each finished row.

    Returns:
        bool: Whether all rows are finished now.
    """
    screen, waiting, running, complete = Progress(), list(rows), [], True
    number = {row.name: f'row {i} of {len(rows)}' for i, row in enumerate(rows, 1)}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                row = waiting.pop(0)
                if row.result:
                    screen.say(f'{number[row.name]}, {row.name}: finished before')
                    if (row.dir / 'settings.txt').read_text() != row.fingerprint:
                        screen.say(f'    with other settings than the config has now; delete {row.dir} to redo it')
                    continue
                try:
                    running.append(Job(row, env))
                except BlockingIOError as error:
                    screen.say(f'{number[row.name]}: skipped, {error}')
                    complete = False
                    continue
                screen.say(f'{number[row.name]}, {row.name}: training; its output: {row.dir / "output.txt"}')
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                row, result = job.row, finish(job.row)
                if result is None:
                    complete = False
                    tail = (row.dir / 'output.txt').read_text(errors='replace').splitlines()[-15:]
                    screen.say('\n    '.join([f'{number[row.name]}, {row.name}: FAILED, exit code '
                                              f'{job.process.returncode}; {row.dir / "output.txt"} ends:', *tail]))
                    continue
                last = {k: v for k, v in result.items() if k.endswith(('last', 'best'))}
                screen.say(f'{number[row.name]}, {row.name}: done in {_clock(result["seconds"])}, {last}')
                done(row)
            if running:
                screen.show(' | '.join(f'{number[job.row.name]}, {job.progress()}' for job in running))
                time.sleep(1)
    finally:
        for job in running:
            job.stop()
    return complete
