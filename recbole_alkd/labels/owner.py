"""Who a process is, so that another process can tell whether it still lives.

A process number alone does not say it: numbers are used again, mean something else in another container, and
survive a restart of the machine. Boot, container (PID namespace), number and start time together do, on
Linux; elsewhere the host's name and the number must do.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """``PLACE/NUMBER/START`` of this process; PLACE is the same for all processes that can see each other."""
    return f"{_place()}/{os.getpid()}/{_start_of(os.getpid()) or '-'}"


def is_alive(owner: str) -> bool | None:
    """Whether the process that ``this_process`` named so lives. None: it cannot be seen from here (another
    machine or container, or a name that an earlier release gave)."""
    try:
        place, number, start = owner.rsplit("/", 2)
        pid = int(number)
    except ValueError:
        return None
    if place != _place() or os.name != "posix" or pid <= 0:  # elsewhere os.kill(pid, 0) would end the process
        return None
    if start != "-":
        return _start_of(pid) == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"boot:{boot}:{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return f"host:{socket.gethostname()}"


def _start_of(pid: int) -> str | None:
    """When the process began, in ticks since the boot, which no clock that is set changes; None: there is
    none, or it has ended and only its parent has not noticed."""
    try:
        # the program's name, in parentheses, may hold anything
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None
