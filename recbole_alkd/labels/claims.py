"""Who is asking for which key right now, so that two processes never pay for the same label.

A claim is a row beside the labels with an owner and a time at which it lapses; a thread renews the claims of a living
owner. A process that is killed leaves its claims behind: they are void at once for processes on the same machine, and
after ``seconds`` otherwise.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable
from types import TracebackType

from recbole_alkd.labels.store import LabelStore


class Claims:
    """The keys that this process is asking. A context manager: leaving it gives all claims back.

    Args:
        store: where labels and claims are kept.
        seconds: how long claims outlive an owner that has vanished without a trace.
        retry_failed: whether a key with a failed label may be claimed.
    """

    def __init__(self, store: LabelStore, seconds: float = 60.0, retry_failed: bool = False) -> None:
        self._store, self._seconds, self._retry_failed = store, seconds, retry_failed
        self._host, self._owner = socket.gethostname(), f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="label-claims", daemon=True)

    def take(self, keys: Iterable[str], limit: int) -> list[str]:
        """Claim up to ``limit`` of ``keys``, in order: those that have no label and that no other living owner claims."""
        done = "SELECT 1 FROM labels WHERE key = ?" + (" AND status = 'ok'" if self._retry_failed else "")
        taken: list[str] = []
        now = time.time()
        with self._store.transaction() as db:
            for key in keys:
                if len(taken) == limit:
                    break
                claim = db.execute("SELECT owner, until FROM claims WHERE key = ?", [key]).fetchone()
                if (claim and self._alive(claim[0], claim[1], now)) or db.execute(done, [key]).fetchone():
                    continue
                db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", [key, self._owner, now + self._seconds])
                taken.append(key)
        return taken

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back without a label."""
        with self._store.transaction() as db:
            db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, self._owner) for key in keys])

    def _alive(self, owner: str, until: float, now: float) -> bool:
        if owner == self._owner or until < now:
            return False
        host, pid, _ = owner.rsplit("/", 2)
        if host == self._host and os.name == "posix":  # elsewhere os.kill(pid, 0) would end the process
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            # a store that is busy now is tried again in a moment; the claims last four times as long
            with contextlib.suppress(sqlite3.Error), self._store.transaction() as db:
                db.execute("UPDATE claims SET until = ? WHERE owner = ?", [time.time() + self._seconds, self._owner])

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with self._store.transaction() as db:
            db.execute("DELETE FROM claims WHERE owner = ?", [self._owner])
