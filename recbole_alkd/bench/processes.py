"""Processes of runs, forked from a server that has imported torch and RecBole once:
no run pays for the imports again.

Every run still has a process of its own, so none sees what another left in memory, and one that is killed
takes no other with it. A run does not outlive the benchmark that started it.
Where the platform has no fork server, processes are started anew.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from recbole_alkd.threads import PASSIVE

# torch's first optimizer imports torch._dynamo, which takes longer than torch itself
PRELOAD = (
    "recbole_alkd.bench.worker",
    "recbole_alkd.trainer.trainer",
    "torch._dynamo",
    "recbole.quick_start",
)
PACKAGE = Path(__file__).resolve().parents[2]


def start_run(task: Path, log: Path, folder: Path, threads: int) -> BaseProcess:
    """Start ``worker.main`` on the file ``task`` in ``folder``; stdout and stderr go to ``log``.
    Its exit code is the worker's."""
    name = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(name)
    context.set_forkserver_preload(list(PRELOAD))
    process: BaseProcess = context.Process(target=_run, args=(task, log, folder, threads))  # type: ignore[attr-defined]
    with _environment(threads):  # the server takes over what is set when its first process starts
        process.start()
    return process


def _run(task: Path, log: Path, folder: Path, threads: int) -> None:
    import torch

    from recbole_alkd.bench.worker import main

    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    sys.exit(main(task))


def _end_with_parent() -> None:
    """End this process when the benchmark has ended, however that came: finished stages are kept,
    as after any kill."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """One thread count for every library, and modules found from where the bench was started."""
    path = os.pathsep.join(filter(None, [os.getcwd(), str(PACKAGE), os.environ.get("PYTHONPATH")]))
    passive = {name: os.environ.get(name, value) for name, value in PASSIVE.items()}
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), **passive}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
