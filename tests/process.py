"""Real subprocesses on the checkout's package."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user's shell, with this checkout first on the path and one thread a process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def run(
    words: list[str], cwd: os.PathLike[str] | str, timeout: int = 300, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python command line in a process of its own; nothing is checked.

    The process is forked from one that has imported the package already (``forks.py``).
    ``fresh`` starts an interpreter.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files:
            file.touch()
        task = {"words": words, "cwd": os.fspath(cwd), "environment": environment(**extra)}
        task |= {name: str(file) for name, file in zip(("out", "err"), files, strict=True)}
        content = json.dumps(task)  # ASCII: characters are bytes
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(server())
            connection.sendall(f"{len(content)}\n{content}".encode())
            stream = connection.makefile("r")
            process = int(stream.readline())
            try:
                code = int(stream.readline())
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(
                    words, timeout, *(file.read_bytes() for file in files)
                ) from None
        out, err = (file.read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess(words, code, out, err)


def fresh(
    words: list[str], cwd: os.PathLike[str] | str, timeout: int = 300, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python command line in an interpreter that has imported nothing; nothing is checked."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def python(code: str, cwd: os.PathLike[str] | str, timeout: int = 300) -> str:
    """Run code in a fresh interpreter and give back its output; its stderr is in the failure."""
    done = fresh(["-c", code], cwd, timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@cache
def server() -> str:
    """The socket of the server that ``run`` forks from, started at its first use; it ends with the tests."""
    folder = tempfile.mkdtemp(prefix="forks")  # a short path: sockets have 100 characters
    path = os.path.join(folder, "socket")
    words = [sys.executable, str(ROOT / "tests" / "forks.py"), path]
    started = subprocess.Popen(
        words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )

    def end() -> None:
        assert started.stdin is not None
        started.stdin.close()
        started.wait(20)
        shutil.rmtree(folder)

    atexit.register(end)
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n", "forks.py did not start"
    return path
