"""Processes that another program has started, such as torchrun: each of them joins the others where it
stands, in place of starting any.

The starter tells a process its place through its environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT) and watches it: where one ends badly, it ends the others. What is said of that, the first process
that knows it says, and the others are silent.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from recbole_alkd.processes.machines import interface_to, loopback
from recbole_alkd.processes.member import FOLDER, KEPT, Failure, Seat, failure_of, work_together
from recbole_alkd.processes.places import Places
from recbole_alkd.processes.terminating import Terminated, tidily
from recbole_alkd.settings.error import AlkdError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # LOCAL_RANK too, where a machine has several
_BETTER = 4.0  # seconds in which a better reason than "another process is gone" may come
_taken: Starter | None = None


@dataclass
class Starter:
    """What the starter of this process told it.

    Attributes:
        rank: of this process. size: how many it started. local_rank: among those of this machine.
        local_size: how many this machine has, as far as it said so.
        address: of the first process's machine.
        runs: how many runs the processes have made together.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    runs: int = 0
    _store: Any = None

    def take_store(self) -> Any:
        """Where the processes tell each other things in their next run. From the first call on, nobody else
        finds the starter's words: a library that saw them would make a second group."""
        from torch import distributed

        if self._store is None:
            self._store, _, _ = next(iter(distributed.rendezvous("env://")))
            for name in (*NAMES, "LOCAL_RANK"):
                os.environ.pop(name, None)
        self.runs += 1
        return distributed.PrefixStore(f"run/{self.runs}", self._store)

    def seat(self) -> Seat:
        alone = self.local_size == self.size
        return Seat(
            self.rank, self.size, self.local_rank, "", loopback() if alone else interface_to(self.address)
        )


def starter() -> Starter | None:
    """Who started this process as one of several; None where nobody did.

    Raises:
        AlkdError: a place that cannot be.
    """
    global _taken
    if _taken is None and all(os.environ.get(name) for name in NAMES):
        size = _number("WORLD_SIZE", 1)
        if size > 1:
            rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
            if rank >= size:
                raise AlkdError(f"RANK: {rank} in the environment is not below WORLD_SIZE, {size}")
            _taken = Starter(rank, size, local, _number("LOCAL_WORLD_SIZE", 1), os.environ["MASTER_ADDR"])
    return _taken


def together(places: Places) -> int:
    """How many processes make a run: those of ``places``, or those that a starter has made.

    Raises:
        AlkdError: both.
    """
    by = starter()
    if by is None:
        return places.size
    if places != Places(ip=places.ip, port=places.port):
        raise AlkdError(
            f"nproc, world_size, group_offset: not allowed where another program, such as torchrun, has "
            f"started the processes ({by.size} of them, by WORLD_SIZE in the environment)"
        )
    return by.size


def join(by: Starter, work: str, arguments: tuple[Any, ...], told: str) -> Any:
    """``launch`` for a process that is one of several already: what it gives, and what it raises.

    Raises:
        SystemExit: another process has said how the run ended.
    """
    from torch import distributed

    if distributed.is_initialized():
        raise AlkdError(
            "torch.distributed: this program has a group of processes of its own; allowed: leave it to "
            "ALKDRec to make one"
        )
    store = by.take_store()
    with tidily():
        try:
            with _folder(by, store) as folder:
                _wait_for_all(by, store)
                os.environ[FOLDER] = folder()
                return work_together(by.seat(), distributed.PrefixStore("processes", store), work, arguments)
        except Terminated:
            failure = Failure(f"ended by SIGTERM; {KEPT}", 143, lost=True)
            says = _says(by, store, failure, patience=0.0)
        except BaseException as error:
            failure = failure_of(error, told)
            if failure.lost:
                failure = Failure(f"another process of this run is gone; {KEPT}", 1, lost=True)
            says = _says(by, store, failure, patience=_BETTER if failure.lost else 0.0)
        finally:
            os.environ.pop(FOLDER, None)
        if not says:
            raise SystemExit(failure.code)
        failure.leave()


def _wait_for_all(by: Starter, store: Any) -> None:
    """torch's own way to meet cannot be interrupted."""
    here = store.add("here", 1)
    while here < by.size:
        time.sleep(0.05)
        here = store.add("here", 0)


@contextlib.contextmanager
def _folder(by: Starter, store: Any) -> Iterator[Any]:
    """The folder that the processes of this machine share: gives a function that waits for its name. It is
    gone at the end, also where the starter is killed."""
    key, ended = f"folder/{by.rank - by.local_rank}", threading.Event()
    names: list[str] = []

    def remove() -> None:
        for one in names:
            shutil.rmtree(one, ignore_errors=True)

    if by.local_rank == 0:
        names.append(tempfile.mkdtemp(prefix="recbole-alkd-"))  # of mode 0700
        store.set(key, names[0])

    def name() -> str:
        while not names:
            if store.check([key]):
                names.append(store.get(key).decode())
            time.sleep(0.05)
        return names[0]

    def watch() -> None:
        parent = os.getppid()
        while not ended.wait(1.0):
            if os.getppid() != parent:
                remove()
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield name
    except BaseException:
        remove()
        raise
    finally:
        ended.set()
        if by.local_rank == 0:
            remove()


def _says(by: Starter, store: Any, failure: Failure, patience: float) -> bool:
    """Whether this process is the one that says how the run ended. ``patience``: seconds for another to."""
    own = json.dumps({"rank": by.rank, **asdict(failure)})
    try:
        until = time.monotonic() + patience
        while time.monotonic() < until and not store.check(["ended"]):
            time.sleep(0.05)
        return bool(store.compare_set("ended", "", own).decode() == own)
    except Terminated:  # the starter ends all of us: nobody has said why yet
        return _says(by, store, failure, 0.0)
    except RuntimeError:  # the store was the first process's, and is gone with it
        return True


def _number(name: str, least: int) -> int:
    """A whole number of the environment; ``least`` where it is not set."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise AlkdError(f"{name}: {text!r} in the environment is not allowed; allowed: at least {least}")
    return int(text)
