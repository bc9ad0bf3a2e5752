"""Real subprocesses on the checkout's package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user's shell, with this checkout first on the path and one thread a process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def run(words: list[str], cwd: os.PathLike[str] | str, timeout: int = 300, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command line; nothing is checked."""
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
    done = run(["-c", code], cwd, timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
