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
from typing import Any

FOLDER = "RECBOLE_ALKD_RUN"  # in the environment of the processes of a run: a folder that only they use
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
    global _seat
    _seat = seat
    pipe.send(Begun())
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal interrupts the process that started us, and that one tells us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if seat.rank:
        logging.getLogger().addHandler(logging.NullHandler())  # the leader speaks for all
    try:
        _join(seat)
        result = named(work)(*arguments)
        _leave()
    except KeyboardInterrupt:
        pipe.send(Failure("interrupted", 130))
    except BaseException as error:
        line, code = named(told)(error)
        pipe.send(Failure(line, code, _is_loss(error)))
    else:
        pipe.send(result if seat.rank == 0 else None)
    pipe.close()


def named(name: str) -> Callable[..., Any]:
    """The function ``module:function``."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _join(seat: Seat) -> None:
    from torch import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", seat.interface)
    if isinstance(seat.store, str):
        store: Any = distributed.FileStore(seat.store, seat.size)
    else:
        store = distributed.TCPStore(*seat.store, is_master=False, timeout=FOREVER)
        store = distributed.PrefixStore("processes", store)
    distributed.init_process_group("gloo", store=store, rank=seat.rank, world_size=seat.size, timeout=FOREVER)


def _leave() -> None:
    from torch import distributed

    distributed.barrier()
    distributed.destroy_process_group()


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
