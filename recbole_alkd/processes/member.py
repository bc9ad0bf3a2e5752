"""One process of a run of several: it joins the others, works, and says how it ended."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from recbole_alkd.settings.error import AlkdError, ToldError

FOLDER = "RECBOLE_ALKD_RUN"  # in the environment of the processes of a run: a folder that only they use
KEPT = "labels and finished stages are kept, and the same command resumes there"
FOREVER = timedelta(days=30)  # labelling may take days; a process that is gone is noticed in other ways


@dataclass(frozen=True)
class Seat:
    """The place of a process in its run.

    Attributes:
        rank: from 0. size: how many there are. local_rank: among those of its machine.
        store: a file, or (address, port) of the first machine, where the processes find each other.
        interface: the network interface that leads to the others.
    """

    rank: int
    size: int
    local_rank: int
    store: str | tuple[str, int]
    interface: str


@dataclass(frozen=True)
class Failure:
    """Why a process ended: one line, and the exit code. ``lost``: it only noticed that another was gone."""

    line: str
    code: int
    lost: bool = False

    def leave(self) -> NoReturn:
        """Raise what says so in a program.

        Raises:
            KeyboardInterrupt: code 130. AlkdError: code 2. ToldError: any other code.
        """
        if self.code == 130:
            raise KeyboardInterrupt
        raise AlkdError(self.line) if self.code == 2 else ToldError(self.line, self.code)


@dataclass(frozen=True)
class Begun:
    """The first thing that a process says: it could load the program that started it."""


_seat: Seat | None = None


def local_rank() -> int:
    """Of this process among those of its machine."""
    return 0 if _seat is None else _seat.local_rank


def begin(seat: Seat, work: str, arguments: tuple[Any, ...], told: str, pipe: Any) -> None:
    """What a new process does: join, work, and send the result (the leader) or the failure through ``pipe``.

    Args:
        work: module:function, called with ``arguments``. told: module:function that puts an error into
            (line, code).
    """
    pipe.send(Begun())
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal interrupts the process that started us, and that one tells us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(work_together(seat, _store(seat), work, arguments))
    except BaseException as error:
        pipe.send(failure_of(error, told))
    pipe.close()


def work_together(seat: Seat, store: Any, work: str, arguments: tuple[Any, ...]) -> Any:
    """Join the others, work, and leave them; what the leader's ``work`` gives, None elsewhere.

    Args:
        store: torch's, by which the processes find each other. work, arguments: as in ``begin``.
    """
    from torch import distributed

    global _seat
    _seat = seat
    if seat.rank:
        logging.getLogger().addHandler(logging.NullHandler())  # the leader speaks for all
    os.environ.setdefault("GLOO_SOCKET_IFNAME", seat.interface)
    distributed.init_process_group("gloo", store=store, rank=seat.rank, world_size=seat.size, timeout=FOREVER)
    result = named(work)(*arguments)
    distributed.barrier()
    distributed.destroy_process_group()
    return result if seat.rank == 0 else None


def failure_of(error: BaseException, told: str) -> Failure:
    """What is said of the error that ended a process. ``told``: as in ``begin``."""
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", 130)
    line, code = named(told)(error)
    return Failure(line, code, _is_loss(error))


def named(name: str) -> Callable[..., Any]:
    """The function ``module:function``."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _store(seat: Seat) -> Any:
    from torch import distributed

    if isinstance(seat.store, str):
        return distributed.FileStore(seat.store, seat.size)
    store = distributed.TCPStore(*seat.store, is_master=False, timeout=FOREVER)
    return distributed.PrefixStore("processes", store)


def _is_loss(error: BaseException) -> bool:
    """Whether ``error`` says no more than that another process is gone."""
    text = str(error).lower()
    words = ("gloo", "nccl", "closed by peer")
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # whoever started us is gone, however that came about, and cannot tidy up
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
        os._exit(1)
