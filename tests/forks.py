"""A server that has imported torch, RecBole and this package once, and forks a process for every command line
it is given.

A test of a command needs a process of its own: working directory, environment, streams, signals, exit code.
It does not need the imports anew, which take longer than most commands.
``process.py`` is its client; ``python forks.py SOCKET`` starts it.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

PRELOAD = (
    "recbole_alkd.cli",
    "recbole.quick_start",
    "recbole_alkd.trainer",
    "recbole_alkd.bench.worker",
    "torch._dynamo",
)


def serve(path: str) -> None:
    """Serve until stdin ends, which it does when the tests end, however they do."""
    for name in PRELOAD:
        __import__(name)
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return keep(connection)  # the process itself returns from here, to end as any program does
        connection.close()


def keep(connection: socket.socket) -> None:
    """Fork the process, tell its number, wait for it and tell how it ended: as
    ``Popen.returncode`` has it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stream = connection.makefile("r", encoding="utf-8")
    size = int(stream.readline())
    task = json.loads(stream.read(size))
    process = os.fork()
    if process == 0:
        stream.close()
        connection.close()
        become(**task)
        return
    connection.sendall(f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(words: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    """Be ``python WORDS`` in ``cwd``: ``-m recbole_alkd.cli ...``, ``-c CODE`` or ``SCRIPT ...``."""
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, file, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY),
        (2, err, os.O_WRONLY),
    ):
        opened = os.open(file, mode | os.O_APPEND if descriptor else mode)
        os.dup2(opened, descriptor)
        os.close(opened)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    here = cwd if words[0] in ("-m", "-c") else os.path.dirname(words[0])
    rest = [entry for entry in sys.path[1:] if entry not in before]
    sys.path[:] = [here, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *rest]
    if words[0] == "-m":
        import recbole_alkd.cli

        sys.argv = [str(recbole_alkd.cli.__file__), *words[2:]]
        recbole_alkd.cli.main()
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(words[1], "<string>", "exec"), scope)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
