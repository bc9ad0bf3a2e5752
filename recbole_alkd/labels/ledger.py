"""What a run has spent, in all its starts: a file in the run's folder, so that a killed run that is started
again has what was left of its budget.

A line is written before a request leaves, with the most that it may take, and another when it is known what
it took. What a killed start had sent and nobody saw the end of is counted with the most that it may have
taken.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from recbole_alkd.labels.cost import Cost, read_amount, read_count
from recbole_alkd.settings.error import AlkdError

FILE = "spending.jsonl"
Taken = Mapping[str, Cost]


@dataclass(frozen=True)
class Spending:
    """Tokens and US dollars that a run has spent.

    Attributes:
        tokens, usd: all starts together, ``unknown`` among them.
        earlier_tokens, earlier_usd: those of earlier starts of the run.
        unknown: requests of earlier starts whose end nobody saw, because the run was killed;
            ``unknown_tokens``: the most that they may have taken, which is counted for them.
        starts: how often the run was started and asked something.
    """

    tokens: int
    usd: float
    earlier_tokens: int
    earlier_usd: float
    unknown: int
    unknown_tokens: int
    starts: int


class Ledger:
    """The file. To be opened once at a time: whoever holds the run's folder.

    Args:
        path: the file; it is made when the first request is noted.
        known: key -> cost of the labels that are stored, for requests whose answer was stored and whose
            second line is missing; None: nothing is known of them.

    Raises:
        AlkdError: the file cannot be read.
    """

    def __init__(self, path: Path, known: Callable[[list[str]], Taken] | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        self._descriptor: int | None = None
        self._torn = True  # whether the file may end in half a line, which a kill or a full disk left
        self.unreadable = 0
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise AlkdError(
                f"what this run has spent cannot be read: {str(path)!r}: {error.strerror}"
            ) from None
        for line in content.split(b"\n"):
            if line.strip(b"\0 \r\t"):
                self._read(line)
        self._earlier = frozenset(self._entries)
        starts = {name.partition(".")[0] for name in self._entries}
        self._start = str(max((int(name) for name in starts if name.isdigit()), default=0) + 1)
        self._starts = len(starts)
        unknown = {name: entry for name, entry in self._entries.items() if entry["open"]}
        if unknown and known:
            costs = known([entry["key"] for entry in unknown.values()])
            for name, entry in unknown.items():
                if entry["key"] in costs:  # the answer is stored, so what it took is known
                    taken = costs[entry["key"]]
                    if taken.tokens <= entry["tokens"]:
                        self._entries[name] = {
                            **entry,
                            "tokens": taken.tokens,
                            "usd": taken.usd,
                            "open": False,
                        }
        self._unknown = [entry for entry in self._entries.values() if entry["open"]]

    def _read(self, line: bytes) -> None:
        try:
            values = json.loads(line)
            entry = {"key": str(values["key"]), "open": bool(values["open"])}
            tokens, usd = read_count(values["tokens"]), values["usd"]
            if tokens is None or (usd is not None and read_amount(usd) is None):
                raise ValueError("no amount")
            self._entries[str(values["id"])] = {**entry, "tokens": tokens, "usd": usd}
        except (ValueError, LookupError, TypeError, RecursionError):
            self.unreadable += 1

    def note(self, name: str | None, key: str, tokens: int, usd: float | None, open_: bool) -> str:
        """Note what a request may take (``open_``) or took, and give back its name,
        under which it is noted again.

        A request whose note fails must not be sent; the note of an open one is durable on return.

        Raises:
            AlkdError: the file cannot be written.
        """
        entry = {"key": key, "tokens": tokens, "usd": usd, "open": open_}
        try:
            with self._lock:
                name = name or f"{self._start}.{len(self._entries) + 1}"
                descriptor = self._append(json.dumps({"id": name, **entry}).encode())
                self._entries[name] = entry
            if open_:
                os.fsync(descriptor)
        except OSError as error:
            if open_:
                raise AlkdError(
                    f"what this run spends cannot be noted in {str(self.path)!r} ({error.strerror}), "
                    "and without that the budget "
                    "would not hold: nothing more is asked"
                ) from None
            # else the most that it may take stays noted, which is no less
        assert name is not None
        return name

    def _append(self, line: bytes) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        data = (b"\n" if self._torn else b"") + line + b"\n"
        self._torn = True
        if os.write(self._descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        return self._descriptor

    @property
    def spending(self) -> Spending:
        with self._lock:
            earlier = [self._entries[name] for name in self._earlier]
            now = [entry for name, entry in self._entries.items() if name not in self._earlier]
        return Spending(
            tokens=_tokens(earlier) + _tokens(now),
            usd=float(_usd(earlier) + _usd(now)),
            earlier_tokens=_tokens(earlier),
            earlier_usd=float(_usd(earlier)),
            unknown=len(self._unknown),
            unknown_tokens=_tokens(self._unknown),
            starts=self._starts + bool(now),
        )

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _tokens(entries: Iterable[dict[str, Any]]) -> int:
    return sum(entry["tokens"] for entry in entries)


def _usd(entries: Iterable[dict[str, Any]]) -> Decimal:
    return sum(
        (Decimal(repr(float(entry["usd"]))) for entry in entries if entry["usd"] is not None), Decimal(0)
    )
