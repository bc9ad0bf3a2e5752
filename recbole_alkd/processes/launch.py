"""Starts the processes of a run on this machine and watches them: where one ends badly, all end, with one
line that says why."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from recbole_alkd.processes.before_start import check_count, check_sendable, cores
from recbole_alkd.processes.device import check_model
from recbole_alkd.processes.machines import OneMachine, machines_of
from recbole_alkd.processes.member import FOLDER, KEPT, Begun, Failure, Seat, begin
from recbole_alkd.processes.places import Places
from recbole_alkd.processes.started import join, starter, together
from recbole_alkd.processes.terminating import Terminated, tidily

_LOOK = 0.5  # seconds between two looks at the other machines
_BETTER = 4.0  # seconds in which a better reason than "another process is gone" may come
_TERM = 5.0  # seconds that a process has to end by itself
_EXIT = 30.0  # seconds in which a process that has done its part leaves; threads of a plug-in may keep it


def launch(work: str, arguments: tuple[Any, ...], places: Places, told: str) -> Any:
    """Call ``work`` (module:function) in every process; gives what the leader returns, and None on a machine
    that does not have it. Where another program has started the processes, this one joins the others.

    Args:
        arguments: what it is called with; they are pickled for the new processes.
        told: module:function that puts an error into (line, exit code).

    Raises:
        AlkdError: what a user can fix, in any process. ToldError: any other end, in one line.
        SystemExit: a process that another program started; another one has said how the run ended.
    """
    by = starter()
    if by is not None:
        return join(by, work, arguments, told)
    check_count(places)
    with (
        tidily(),
        tempfile.TemporaryDirectory(prefix="recbole-alkd-") as folder,  # of mode 0700
        _environment(places, folder),
    ):
        machines = machines_of(places, os.path.join(folder, "store"))
        members: list[Member] = []
        try:
            for k, rank in enumerate(places.ranks):
                seat = Seat(rank, places.size, k, machines.store, machines.interface)
                members.append(Member(seat, work, arguments, told))
        except BaseException:  # those that were started would wait for the others for ever
            _end(members)
            raise
        result = _watched(members, machines)
    if isinstance(result, Failure):
        result.leave()
    return result


def launch_run(arguments: tuple[Any, ...], places: Places, strict: bool) -> dict[str, Any]:
    """``run_recbole_alkd`` in several processes; empty where the leader is on another machine. What they need
    is not loaded here.

    Args:
        arguments: its first five. strict: whether the command line is ours (``checks.own_command``).
    """
    if arguments[0] is not None:  # otherwise a file of settings names it
        check_model(arguments[0], together(places))
    if starter() is None:
        check_sendable(arguments)
    work, told = "recbole_alkd.quick_start:run_as_member", "recbole_alkd.door:told"
    return launch(work, (arguments, strict), places, told) or {}


class Member:
    """A process that was started."""

    def __init__(self, seat: Seat, work: str, arguments: tuple[Any, ...], told: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.seat = seat
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=begin, args=(seat, work, arguments, told, theirs))
        self.process.start()
        theirs.close()
        self.begun, self.ended, self.result = False, False, None

    def look(self) -> Failure | None:
        """Note whether the process has ended; why, where it has ended badly."""
        if self.ended:
            return None
        works = self.process.is_alive()  # asked first: what it says, it says before it ends
        try:
            while self.pipe.poll():
                told = self.pipe.recv()
                if isinstance(told, Begun):
                    self.begun = True
                    continue
                self.result, self.ended = told, True
                return told if isinstance(told, Failure) else None
        except (EOFError, OSError):
            pass
        if works:
            return None
        self.ended = True
        code = self.process.exitcode or 0
        if code > 0 and not self.begun:
            return Failure(
                f"nproc: process {self.seat.rank} of {self.seat.size} could not load the program that starts "
                'it; allowed: a program in a file, which does so under `if __name__ == "__main__":`',
                2,
            )
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        memory = " (the system does that where memory runs out)" if -code == signal.SIGKILL else ""
        line = f"process {self.seat.rank} of {self.seat.size} {how}{memory}; "
        return Failure(line + KEPT, 1)

    def end(self) -> None:
        self.process.terminate()


def _watched(members: list[Member], machines: OneMachine) -> Any:
    """What the first member returns, or why the run ended."""
    failure: Failure | None = None
    try:
        while failure is None and not all(member.ended for member in members):
            failure = _look(members, machines)
        if failure is not None and failure.lost:
            failure = _better(failure, members, machines)
    except KeyboardInterrupt:
        failure = Failure("interrupted", 130)
        _interrupt(members)
    except Terminated:
        _end(members)
        machines.tell(Failure(f"a machine of this run was ended by SIGTERM; {KEPT}", 1))
        raise
    finally:
        if failure is not None or not all(member.ended for member in members):
            _end(members)
    machines.tell(failure)
    until = time.monotonic() + _EXIT
    for member in members:
        member.process.join(max(0.0, until - time.monotonic()))
        if member.process.is_alive():
            which = f"process {member.seat.rank} of {member.seat.size}"
            print(f"note: {which} has done its part but does not leave: ended", file=sys.stderr)
    _end(members)
    return failure or members[0].result


def _look(members: list[Member], machines: OneMachine) -> Failure | None:
    waits = [member.process.sentinel for member in members if not member.ended]
    connection.wait([*waits, *(member.pipe for member in members if not member.ended)], timeout=_LOOK)
    failures = [found for member in members if (found := member.look()) is not None]
    failures.sort(key=lambda one: one.lost)
    return failures[0] if failures else machines.look()


def _better(failure: Failure, members: list[Member], machines: OneMachine) -> Failure:
    """A failure that says more than that another process is gone, if one comes."""
    until = time.monotonic() + _BETTER
    while time.monotonic() < until:
        other = _look(members, machines)
        if other is not None and not other.lost:
            return other
        time.sleep(0.05)
    return failure


def _interrupt(members: list[Member]) -> None:
    """Let the leader end as it does when it is interrupted; a second interruption ends it at once."""
    leader = next((one for one in members if one.seat.rank == 0 and one.process.is_alive()), None)
    if leader is None or leader.process.pid is None:
        return
    try:
        os.kill(leader.process.pid, signal.SIGINT)
        while leader.process.is_alive() and not leader.ended:
            connection.wait([leader.process.sentinel, leader.pipe], timeout=_LOOK)
            leader.look()
    except (KeyboardInterrupt, ProcessLookupError):
        pass


def _end(members: list[Member]) -> None:
    for member in members:
        member.end()
    until = time.monotonic() + _TERM
    for member in members:
        member.process.join(max(0.0, until - time.monotonic()))
        if member.process.is_alive():
            member.process.kill()
            member.process.join()


@contextmanager
def _environment(places: Places, folder: str) -> Iterator[None]:
    """What the new processes find in their environment: the run's folder, and their share of the cores."""
    own = {FOLDER: folder, "OMP_NUM_THREADS": str(max(1, cores() // places.nproc))}
    if "OMP_NUM_THREADS" in os.environ:
        del own["OMP_NUM_THREADS"]
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
