"""Who is asking for which key right now, so that two processes never pay for the same label.

A claim is a row beside the labels with an owner and a time at which it lapses. As long as its owner lives it
is the owner's, also when that process is stopped; when the owner is dead it is void at once. Where nobody can
see the owner (in another container or on another machine), a thread's renewals tell that it lives: the claim
lapses ``seconds`` after the last one. So an owner looks at its claim again just before it sends the question.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType

from recbole_alkd.labels.file import LabelStoreError, StoreFile
from recbole_alkd.labels.network import machines, network_file_system
from recbole_alkd.labels.owner import is_alive, this_process
from recbole_alkd.labels.store import LabelStore

_SENDING = 5.0  # seconds that a claim must still hold for a question to be sent
_living: set[str] = set()  # owners in this process that have not given their claims back


class Claims:
    """The keys that this process is asking. A context manager: leaving it gives all claims back.

    Args:
        store: where labels and claims are kept.
        seconds: how long claims outlive an owner that has vanished without a trace.
        retry_failed: whether a key with a failed label may be claimed.
    """

    def __init__(self, store: LabelStore, seconds: float = 60.0, retry_failed: bool = False) -> None:
        self._file, self._seconds = store.connection(), seconds
        self._done = "SELECT 1 FROM labels WHERE key = ?" + (" AND status = 'ok'" if retry_failed else "")
        self._owner = f"{this_process()}.{uuid.uuid4().hex}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="label-claims", daemon=True)
        try:
            _refuse_other_machines(self._file, self._owner)
        except LabelStoreError:
            self._file.close()
            raise
        _living.add(self._owner)

    def take(self, keys: Iterable[str], limit: int) -> list[str]:
        """Claim up to ``limit`` of ``keys``, in order: those that have no label and that no other living
        owner claims."""
        wanted = list(keys)

        def claim(db: sqlite3.Connection) -> list[str]:
            taken: list[str] = []
            for key in wanted:
                if len(taken) == limit:
                    break
                if self._claim(db, key):
                    taken.append(key)
            return taken

        return self._file.write(claim)

    def hold(self, key: str) -> bool:
        """Whether ``key`` is still this owner's to ask, now: to be called just before the question is sent.

        A claim that has lapsed meanwhile (this process was stopped) is taken anew where nobody else has it
        and no label came.
        """
        rows = self._file.read("SELECT owner, until FROM claims WHERE key = ?", [key])
        if rows and rows[0][0] == self._owner and self._holds(rows[0][1] - _SENDING, time.time()):
            return True
        return self._file.write(lambda db: self._claim(db, key))

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back without a label."""
        given = [(key, self._owner) for key in keys]
        if given:
            self._file.write(
                lambda db: db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", given)
            )

    def others(self, keys: Sequence[str]) -> list[str]:
        """Processes that hold one of ``keys``, in words."""
        owners = self._file.read(
            f"SELECT DISTINCT owner FROM claims WHERE key IN ({', '.join('?' * len(keys[:500]))})", keys[:500]
        )
        return [_words(owner) for (owner,) in owners if owner != self._owner]

    def _claim(self, db: sqlite3.Connection, key: str) -> bool:
        now = time.time()
        claim = db.execute("SELECT owner, until FROM claims WHERE key = ?", [key]).fetchone()
        if (claim and self._belongs_to_another(claim[0], claim[1], now)) or db.execute(
            self._done, [key]
        ).fetchone():
            return False
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", [key, self._owner, now + self._seconds])
        return True

    def _belongs_to_another(self, owner: str, until: float, now: float) -> bool:
        if owner == self._owner:
            return False
        process = owner.rpartition(".")[0]
        alive = is_alive(process)
        if alive is None:  # an earlier release's, or out of sight
            return self._holds(until, now)
        # an owner in this very process may have failed to give its claims back
        return alive and (process != self._owner.rpartition(".")[0] or owner in _living)

    def _holds(self, until: object, now: float) -> bool:
        """Whether a claim has not lapsed. One from the future is none: the clock was set back,
        or the row is damaged."""
        return isinstance(until, (int, float)) and now <= until <= now + max(60.0, self._seconds)

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            # where it fails, the owner finds out before it sends; the claims last four times as long
            with contextlib.suppress(LabelStoreError):
                self._file.write(self._lengthen, patience=0)

    def _lengthen(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE claims SET until = ? WHERE owner = ?", [time.time() + self._seconds, self._owner])

    def _give_back(self, patience: float) -> None:
        self._file.write(lambda db: db.execute("DELETE FROM claims WHERE owner = ?", [self._owner]), patience)

    def _give_back_later(self) -> None:
        with contextlib.suppress(LabelStoreError):  # they are void when this process ends
            self._give_back(patience=math.inf)
        self._file.close()

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        _living.discard(self._owner)
        self._thread.join()
        try:
            self._give_back(patience=1.0)
            self._file.close()
        except LabelStoreError:  # the store is busy: what has been answered need not wait for that
            threading.Thread(target=self._give_back_later, name="label-claims", daemon=True).start()


def _words(owner: str) -> str:
    parts = owner.rsplit("/", 2)
    if len(parts) == 3 and is_alive(owner.rpartition(".")[0]):
        return f"another process ({parts[1]})"
    return "another process (in another container or on another machine)"


def _refuse_other_machines(file: StoreFile, own: str) -> None:
    """LabelStoreError where the store is on a network file system and another machine labels into it now."""
    kind = network_file_system(file.path)
    if kind is None:
        return
    rows = file.read("SELECT DISTINCT owner FROM claims WHERE until > ?", [time.time()])
    if machines(owner for (owner,) in rows) - machines([own]):
        raise LabelStoreError(
            f"label_store: {str(file.path)!r} is on a network file system ({kind}), and another machine is "
            "labelling into it; SQLite's locks do not hold there. Label from one machine at a time, or let "
            "one machine drive others (label_engine: ray)"
        )
