"""Where the processes of a run are: RecBole's --nproc, --world_size, --ip, --port and --group_offset."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.error import AlkdError

PORT = 5678  # RecBole's


@dataclass(frozen=True)
class Places:
    """The processes of a run, and those of them that this machine starts.

    Attributes:
        nproc: processes of this machine. world_size: of all machines; -1: of this one.
        ip, port: where the first machine (``group_offset`` 0) is found by the others.
        group_offset: the rank of this machine's first process.

    Raises:
        AlkdError: numbers that do not go together.

    Example:
        >>> Places(nproc=2, world_size=4, ip="10.0.0.1", group_offset=2).ranks
        range(2, 4)
    """

    nproc: int = 1
    world_size: int = -1
    ip: str = "localhost"
    port: int = PORT
    group_offset: int = 0

    def __post_init__(self) -> None:
        for name, least in (("nproc", 1), ("world_size", -1), ("port", 1), ("group_offset", 0)):
            value = _number(name, getattr(self, name))
            if value < least or (name == "world_size" and value == 0) or (name == "port" and value > 65535):
                allowed = {"world_size": "-1, or at least 1", "port": "1 to 65535"}
                raise AlkdError(
                    f"{name}: {value} is not allowed; allowed: {allowed.get(name, f'at least {least}')}"
                )
            object.__setattr__(self, name, value)
        if not isinstance(self.ip, str) or not self.ip:
            raise AlkdError(f"ip: {self.ip!r} is not allowed; allowed: name or address of the first machine")
        if self.nproc > self.size:
            raise AlkdError(
                f"world_size: {self.world_size} is less than nproc ({self.nproc}), the processes of this "
                "machine alone; allowed: -1, or those of all machines together"
            )
        if self.group_offset + self.nproc > self.size:
            raise AlkdError(
                f"group_offset: {self.group_offset} with nproc {self.nproc} is more than the {self.size} "
                f"processes of world_size; allowed: at most {self.size - self.nproc}"
            )

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.nproc if self.world_size == -1 else self.world_size

    @property
    def several_machines(self) -> bool:
        return self.size > self.nproc

    @property
    def ranks(self) -> range:
        """Of the processes of this machine."""
        return range(self.group_offset, self.group_offset + self.nproc)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The arguments of RecBole's ``run_recbole.py``."""
    parser.add_argument("--nproc", default=1, metavar="N", help="processes of this machine (default: 1)")
    parser.add_argument(
        "--world_size", default=-1, metavar="N", help="processes of all machines (default: of this one)"
    )
    parser.add_argument("--ip", default="localhost", help="the first machine (default: localhost)")
    parser.add_argument("--port", default=PORT, help=f"a free port of the first machine (default: {PORT})")
    parser.add_argument(
        "--group_offset", default=0, metavar="N", help="rank of this machine's first process (default: 0)"
    )


def places_of(args: argparse.Namespace) -> Places:
    return Places(args.nproc, args.world_size, args.ip, args.port, args.group_offset)


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise AlkdError(f"{name}: {value!r} is not allowed; allowed: a whole number")
    try:
        return int(value)
    except ValueError:
        raise AlkdError(f"{name}: {value!r} is not allowed; allowed: a whole number") from None
