"""The machines of a run: they find each other, and each notices when another ends, fails or falls silent."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from recbole_alkd.processes.member import Failure
from recbole_alkd.processes.places import Places
from recbole_alkd.settings.error import AlkdError

PATIENCE = 600.0  # seconds that machines wait for each other at the start
SILENCE = 60.0  # seconds without a sign of life after which a machine is gone
QUIET = 2.0  # seconds after which a machine that waits says for whom
BEAT = 2.0  # seconds between signs of life
GRACE = 30.0  # seconds in which the others may still learn how a run ended


class OneMachine:
    """A run on one machine. ``store``: a file in a folder of the run's own, so that no port is opened."""

    def __init__(self, store: str) -> None:
        self.store: str | tuple[str, int] = store
        self.interface = loopback()

    def look(self) -> Failure | None:
        """Why the run has ended on another machine, if it has."""
        return None

    def tell(self, failure: Failure | None) -> None:
        """Tell the other machines how the run ended on this one."""


class SeveralMachines(OneMachine):
    """A run on several machines, of which the first keeps what they tell each other.

    Raises:
        AlkdError: the first machine is not found; ranks that two machines start; machines that do not come.
    """

    def __init__(self, places: Places, patience: float = PATIENCE) -> None:
        self.store, self.interface = (places.ip, places.port), interface_to(places.ip)
        self._places, self._last = places, 0.0
        self._silent: dict[int, tuple[int, float]] = {}  # offset -> signs of life, and when the last one came
        first, until = places.group_offset == 0, time.monotonic() + patience
        if first:
            _check_own(places.ip)
        else:
            _wait_for_first(places, patience)
        try:
            from torch import distributed

            self._shared: Any = distributed.TCPStore(
                places.ip, places.port, is_master=first, wait_for_workers=False,
                timeout=timedelta(seconds=max(1.0, until - time.monotonic())),
            )  # fmt: skip
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            if first:
                raise AlkdError(
                    f"port: {places.port} of {places.ip!r} cannot be opened ({words}); allowed: a free port"
                ) from None
            raise _no_first(places, patience, words) from None
        self._sit_down()
        self._wait(patience)

    def look(self) -> Failure | None:
        if time.monotonic() - self._last < BEAT:
            return None
        self._last = time.monotonic()
        try:
            self._shared.add(f"beat/{self._places.group_offset}", 1)
            if self._shared.check(["ended"]):
                told = json.loads(self._shared.get("ended"))
                return Failure(told["line"], int(told["code"]), bool(told["lost"]))
            for offset in self._others():
                if self._shared.check([f"done/{offset}"]):
                    continue
                beats = self._shared.add(f"beat/{offset}", 0)
                seen, since = self._silent.get(offset, (-1, 0.0))
                if beats != seen:
                    self._silent[offset] = (beats, self._last)
                elif self._last - since > SILENCE:
                    return Failure(
                        f"the machine with group_offset {offset} has given no sign of life for {SILENCE:g} s",
                        1,
                    )
        except RuntimeError:
            return Failure(f"the first machine ({self._places.ip}) is gone", 1)
        return None

    def tell(self, failure: Failure | None) -> None:
        offset, until = self._places.group_offset, time.monotonic() + GRACE
        try:
            if failure is not None:
                self._shared.compare_set("ended", "", json.dumps(asdict(failure)))
            self._shared.set(f"done/{offset}", "1")
            # what they tell each other is gone with the first machine
            while not offset and time.monotonic() < until:
                if all(self._shared.check([f"done/{other}"]) for other in self._others()):
                    break
                time.sleep(0.1)
        except RuntimeError:
            pass

    def _sit_down(self) -> None:
        """Take the ranks of this machine."""
        places = self._places
        size = self._shared.compare_set("size", "", str(places.size)).decode()
        if size != str(places.size):
            raise AlkdError(f"world_size: {places.size} here, {size} on another machine; allowed: one number")
        for rank in places.ranks:
            if self._shared.add(f"rank/{rank}", 1) != 1:
                raise AlkdError(
                    f"group_offset: rank {rank} is started by another machine too; allowed: group_offset and "
                    "nproc of all machines side by side"
                )
        number = self._shared.add("machines", 1)
        self._shared.set(f"machine/{number}", str(places.group_offset))
        self._shared.add("seated", places.nproc)

    def _wait(self, patience: float) -> None:
        begun, size = time.monotonic(), self._places.size
        until, said = begun + patience, False
        while (seated := self._shared.add("seated", 0)) < size:
            if not said and time.monotonic() > begun + QUIET:
                said = True
                _say(f"{size - seated} of {size} processes, which other machines start", patience)
            if time.monotonic() > until:
                raise AlkdError(
                    f"world_size: {seated} of {size} processes came in {patience:g} s; start the others with "
                    "their group_offset, or allow fewer"
                )
            time.sleep(0.1)

    def _others(self) -> Iterator[int]:
        for number in range(1, self._shared.add("machines", 0) + 1):
            offset = int(self._shared.get(f"machine/{number}"))
            if offset != self._places.group_offset:
                yield offset


def machines_of(places: Places, store: str) -> OneMachine:
    """The machines of a run. ``store``: the file by which the processes of one find each other."""
    return SeveralMachines(places) if places.several_machines else OneMachine(store)


def _check_own(ip: str) -> None:
    """AlkdError where the first machine would be another one than this."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(ip, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as one:
            one.bind(address)
    except OSError as error:
        raise AlkdError(
            f"ip: {ip!r} is no address of this machine ({error.strerror or error}), which is the first one "
            "(group_offset 0); allowed: an address of its own, by which the others reach it"
        ) from None


def _wait_for_first(places: Places, patience: float) -> None:
    """Until the first machine listens. torch's own way to wait cannot be interrupted, and prints a trace."""
    begun, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((places.ip, places.port), timeout=5.0).close()
            return
        except OSError as error:
            waited = time.monotonic() - begun
            if waited > patience:
                raise _no_first(places, patience, error.strerror or str(error)) from None
        if not said and waited > QUIET:
            said = True
            _say(f"the first machine, {places.ip}:{places.port}", patience)
        time.sleep(min(0.5, patience / 10))


def _no_first(places: Places, patience: float, words: str) -> AlkdError:
    return AlkdError(
        f"ip: no first machine at {places.ip}:{places.port} in {patience:g} s ({words}); allowed: where the "
        "one with group_offset 0 runs"
    )


def _say(whom: str, patience: float) -> None:
    print(f"waiting for {whom}; at most {patience:g} s", file=sys.stderr, flush=True)


def loopback() -> str:
    """The interface of this machine to itself."""
    return interface_to("127.0.0.1")


def interface_to(host: str) -> str:
    """The network interface that leads to ``host``.

    Raises:
        AlkdError: no such host, or no way to it.
    """
    import psutil

    try:
        family, _, _, _, address = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(address)  # of datagrams: nothing is sent
            own = way.getsockname()[0]
    except OSError as error:
        raise AlkdError(f"ip: {host!r} is not reached ({error}); allowed: the first machine") from None
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == own for one in addresses):
            return name
    raise AlkdError(f"ip: no network interface here has the address {own}, which leads to {host!r}")
