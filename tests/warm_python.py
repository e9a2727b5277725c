"""A Python that has torch and mmseg imported already, for the many processes that the tests start.

A test that runs a tool as its user does starts a process, and five of its seven seconds are imports of other people's
packages. :func:`start` imports these once, in a server. Beside it, it leaves an executable `python`: called as any
Python, it has the server fork, and the fork runs the script with the caller's arguments, folder, environment, streams
and signals, and ends as a process of its own. The package under test is never imported beforehand.

Whatever a fork cannot do (other options of the interpreter, inherited files, another number of threads, settings of
the allocator, a process group that is signalled as one) runs in an ordinary Python. ``WARM_PYTHON=0`` runs everything
there.
"""
import array
import atexit
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import List, Optional, Tuple

ADDRESS = 'WARM_PYTHON_SOCKET'
PACKAGES = ('mmseg.apis', 'mmpretrain', 'mmseg.models', 'mmseg.datasets', 'yapf.yapflib.yapf_api', 'cv2')
# Read when a process starts, so that a fork would not see them.
AT_START = re.compile('(MALLOC|OMP|MKL)_|LD_PRELOAD|PYTHON(?!$|PATH$)')
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(folder: Path) -> Tuple[subprocess.Popen, Path]:
    """Starts the server; it ends when its stdin is closed.

    Args:
        folder (Path): Where to put the executable and the socket.

    Returns:
        tuple[Popen, Path]: The server, which may still import, and the executable.
    """
    python = folder / 'python'
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).resolve()}" "$0" "$@"\n')
    python.chmod(0o755)
    address = folder / 'socket'
    os.environ[ADDRESS] = str(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    env.pop('PYTHONPATH', None)
    # Out of this session: a Ctrl-C at the terminal reaches the children through those who started them.
    server = subprocess.Popen([sys.executable, __file__, 'serve', str(listener.fileno()), str(python)], env=env,
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              pass_fds=[listener.fileno()], start_new_session=True)
    listener.close()
    return server, python


def possible() -> bool:
    """Whether this machine can: Linux with pidfd_open, and no GPU, as CUDA does not survive a fork."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return not os.path.exists('/dev/nvidiactl')


def at_start(environment: dict) -> dict:
    """The variables that a fork would not see, and the sitecustomize modules that they bring."""
    seen = {name: value for name, value in environment.items() if AT_START.match(name)}
    modules = [f'{folder}/sitecustomize.py' for folder in environment.get('PYTHONPATH', '').split(os.pathsep)]
    return seen | {module: '' for module in modules if os.path.isfile(module)}


def script_of(words: List[str]) -> Optional[int]:
    """Where in a command line the script begins, -c and -m included; None if a fork cannot run it."""
    i = 0
    while words[i:i + 1] == ['-u'] or words[i:i + 2] == ['-W', 'ignore']:
        i += 2 if words[i] == '-W' else 1
    if i == len(words) or words[i] == '-' or (words[i].startswith('-') and words[i] not in ('-c', '-m')):
        return None
    return None if 'multiprocessing' in ' '.join(words[i:i + 2]) or words[i:i + 2] == ['-m', 'pip'] else i


def client(executable: str, words: List[str]) -> None:
    """Has the server run a command line and ends as it ended; runs it in an ordinary Python where a fork cannot."""
    begin, address = script_of(words), os.environ.get(ADDRESS)
    if os.getpgrp() == os.getpid() and 'LOCAL_RANK' not in os.environ:  # torchrun ends its ranks one by one
        begin = None  # whoever made a group for this process may mean to end all of it at once
    if len(os.listdir('/proc/self/fd')) > 4:  # the streams and this listing
        begin = None
    connection = socket.socket(socket.AF_UNIX)
    try:
        if begin is None or address is None:
            raise OSError
        connection.connect(address)
    except OSError:
        os.execv(sys.executable, [sys.executable, *words])
    request = json.dumps(dict(words=words, begin=begin, cwd=os.getcwd(), environment=dict(os.environ))).encode()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until the request is out
    for number in FORWARDED:
        signal.signal(number, lambda number, _: connection.send(bytes([number])))
    streams = array.array('i', [0, 1, 2])
    connection.sendmsg([len(request).to_bytes(8, 'little')], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    connection.sendall(request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    answer = b''
    while len(answer) < 4:
        part = connection.recv(4 - len(answer))
        if not part:
            sys.exit('the server of tests/warm_python.py is gone')
        answer += part
    status = int.from_bytes(answer, 'little', signed=True)
    if status == -1000:  # the server's start was another one
        os.execv(sys.executable, [sys.executable, *words])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


def receive(connection: socket.socket) -> Tuple[dict, List[int]]:
    """A request and the three streams that came with it."""
    streams = array.array('i')
    head, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    size, body = int.from_bytes(head, 'little'), b''
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            os._exit(1)  # the caller was killed
        body += part
    return json.loads(body), list(streams)


def watch(connection: socket.socket, child: int) -> int:
    """Hands signals on to a child until it ends; a caller that is gone takes the child with it. Returns the status."""
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([ended, connection], [], [])
        if ended in ready:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        number = connection.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)


def serve(number: int, executable: str) -> dict:
    """Forks for each request; returns, in the fork, what it shall run."""
    import gc
    import importlib
    beginning = at_start(dict(os.environ))
    for name in PACKAGES:
        with contextlib.suppress(ImportError):  # a stack without it
            importlib.import_module(name)
    for home in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # as conftest.mmseg_scope does, and why
        if hasattr(sys.modules[home], 'FormatCode'):
            sys.modules[home].FormatCode = lambda text, **_: (text, True)
    sys.executable = executable
    gc.freeze()  # a collection in a fork would copy all of it
    listener = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watchers
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        request, streams = receive(connection)
        if at_start(request['environment']) != beginning:
            connection.sendall((-1000).to_bytes(4, 'little', signed=True))
            os._exit(0)
        child = os.fork()
        if child:
            for stream in streams:
                os.close(stream)
            status = watch(connection, child)
            with contextlib.suppress(BrokenPipeError):  # the caller was killed
                connection.sendall(status.to_bytes(4, 'little', signed=True))
            os._exit(0)
        connection.close()
        for stream, copy in enumerate(streams):
            os.dup2(copy, stream)
            os.close(copy)
        return request


def become(request: dict) -> None:
    """Makes this fork the process that was asked for, up to its script."""
    import runpy
    import types
    import warnings

    import numpy as np
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # or all forks would draw the same
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['environment'])
    options, (first, *rest) = request['words'][:request['begin']], request['words'][request['begin']:]
    if '-W' in options:
        warnings.simplefilter('ignore')
    if '-u' in options:
        sys.stdout.reconfigure(write_through=True)
    path = [folder for folder in os.environ.get('PYTHONPATH', '').split(os.pathsep) if folder]
    here = '' if first == '-c' else os.getcwd() if first == '-m' else str(Path(first).resolve().parent)
    sys.path[:] = [here, *path, *sys.path[1:]]
    if first == '-c':
        sys.argv = ['-c', *rest[1:]]
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        exec(compile(rest[0], '<string>', 'exec'), vars(main))
    elif first == '-m':
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name='__main__')


def run(request: dict) -> None:
    """Runs what was asked for and ends as an interpreter does, without taking apart all that it holds."""
    code, number = 0, None
    try:
        become(request)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        code, number = 1, signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if number:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(code & 255)


if __name__ == '__main__':
    if sys.argv[1] == 'serve':
        run(serve(int(sys.argv[2]), sys.argv[3]))
    else:
        client(sys.argv[1], sys.argv[2:])
