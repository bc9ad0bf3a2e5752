"""The SQLite file under a label store: opened for writing or, where that is impossible, for reading;
writes that wait.

A write that meets a lock, a full disk or a disk that does not answer is tried again for a while. When it is
given up, the caller gets one sentence and still holds what it wanted to write.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from recbole_alkd.labels.network import WORKER, network_file_system
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOCKED_SECONDS = 600.0  # a write waits for another process for so long,
FAULT_SECONDS = 5.0  # and for a disk that is full or gives errors
TOLD_AFTER = 5.0  # seconds of waiting after which the log says so
_STEP = 0.5  # seconds that SQLite itself waits: Ctrl-C is seen in between
_LITTLE = 1 << 17  # bytes that are left on a disk which is as good as full
_FAULTS = ("full", "disk i/o", "unable to open", "readonly", "locking protocol", "interrupted")
_DAMAGE = ("malformed", "not a database", "encrypted", "corrupt")
_checked: set[tuple[str, int, int]] = set()  # files whose structure this process has checked


class LabelStoreError(AlkdError):
    """A file that cannot be used as a label store, or not now."""


class StoreGoneError(LabelStoreError):
    """The file was deleted or moved while it was used: what was stored in it may be gone too."""


class StoreFile:
    """One connection to the file of a label store. Threads may share it.

    Attributes:
        readonly: whether the file or its folder cannot be written.

    Raises:
        LabelStoreError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._copy: str | None = None  # a folder with a copy of the file
        if path.is_dir():
            example = str(path / "labels.sqlite")
            raise LabelStoreError(
                f"label_store: {str(path)!r} is a folder; give the name of a file, e.g. {example!r}"
            )
        kind = network_file_system(path) if os.environ.get(WORKER) else None
        if kind:
            raise LabelStoreError(
                f"label_store: {str(path)!r} is on a network file system ({kind}); a worker of another "
                "process does not open it, because SQLite's locks do not hold there: only the driver does"
            )
        try:
            self.readonly = path.exists() and not (
                os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = self._open_readonly() if self.readonly else connect(path)
            self.note_place()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise LabelStoreError(f"label_store: {str(path)!r} cannot be opened: {_words(error)}") from error

    def note_place(self) -> None:
        """Remember which file it is: a write to one that was deleted or moved meanwhile would be lost without
        a word."""
        self.identity = _identity(self.path)

    def _open_readonly(self) -> sqlite3.Connection:
        """A connection that needs no files beside the store: on a disk that is read-only they
        cannot be made."""
        db = connect(f"{self.path.as_uri()}?mode=ro")
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return db
        except sqlite3.OperationalError:
            db.close()
        log = Path(f"{self.path}-wal")
        if not (log.is_file() and log.stat().st_size):
            return connect(f"{self.path.as_uri()}?immutable=1")
        # the newest labels stand in the log, which SQLite reads only where it may write: in a copy
        self._copy = tempfile.mkdtemp(prefix="recbole_alkd-store-")
        for file in (self.path, log):
            shutil.copyfile(file, Path(self._copy) / file.name)
        return connect(Path(self._copy) / self.path.name)

    def close(self) -> None:
        with self.lock, contextlib.suppress(AttributeError):
            self.db.close()
        if self._copy:
            shutil.rmtree(self._copy, ignore_errors=True)

    # reading

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one SELECT, outside of a transaction."""
        with self.lock:
            return self._patiently(lambda: self.db.execute(sql, values).fetchall(), "a reader")

    # writing

    def write(self, work: Callable[[sqlite3.Connection], T], patience: float = LOCKED_SECONDS) -> T:
        """What ``work`` gives, run in one write transaction: all of it is stored durably on return,
        or nothing.

        ``work`` is run again after a lock or a fault of the disk, for ``LOCKED_SECONDS`` or
        ``FAULT_SECONDS``, and for ``patience`` seconds at most.

        Raises:
            LabelStoreError: it was given up, the store cannot be written, or it is not where it was.
        """
        self.check_writable()

        def once() -> T:
            with self._whole() as db:
                return work(db)

        with self.lock:
            return self._patiently(once, "a write", patience)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """As ``write`` for the body of a ``with``, which cannot be run again: only its beginning waits."""
        self.check_writable()
        with self.lock:
            whole, db = self._patiently(self._begun, "a write")
            try:
                yield db
            except BaseException as error:
                whole.__exit__(type(error), error, error.__traceback__)
                raise
            else:
                try:
                    whole.__exit__(None, None, None)
                except sqlite3.Error as error:
                    raise self.problem(error) from error

    def _begun(self) -> tuple[contextlib.AbstractContextManager[sqlite3.Connection], sqlite3.Connection]:
        whole = self._whole()  # a new one for every try: it can be entered once
        return whole, whole.__enter__()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.check_place()
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # after some faults SQLite has rolled back by itself
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
            raise

    def check_place(self) -> None:
        """StoreGoneError where the file that is open is no longer the one at ``path``."""
        if self.identity is not None and _identity(self.path) != self.identity:
            raise StoreGoneError(f"label_store: {str(self.path)!r} was deleted or moved while it was used")

    def check_writable(self) -> None:
        """LabelStoreError where the store is read-only or damaged.
        The structure is checked once in a process."""
        if self.readonly:
            raise LabelStoreError(
                f"label_store: {str(self.path)!r} cannot be written (the file, its folder or its disk is "
                "read-only): its labels "
                "are used, and nothing new is asked; give another label_store to ask"
            )
        if self.identity is None or (str(self.path), *self.identity) in _checked:
            return
        problem = self.first_problem()
        if problem:
            raise LabelStoreError(
                f"label_store: {str(self.path)!r} is damaged ({problem}) and is not written to any more; "
                f"`recbole-alkd store repair --store {self.path}` saves what can be read"
            )
        _checked.add((str(self.path), *self.identity))

    def first_problem(self) -> str | None:
        """What is wrong with the structure of the file, or None.

        Raises:
            LabelStoreError: it cannot be looked at now, as where the disk is full, which is no damage.
        """
        try:
            problems = self.read("PRAGMA integrity_check(1)")
        except LabelStoreError as error:
            if not _is_damage(error.__cause__ or error):
                raise
            return _words(error.__cause__ or error)
        return None if problems == [("ok",)] else str(problems[0][0]).replace("\n", " ")

    def _patiently(self, work: Callable[[], T], what: str, most: float = math.inf) -> T:
        began, told, pause = time.monotonic(), False, 0.01
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                waited = time.monotonic() - began
                if waited >= min(most, _patience(error)):
                    raise self.problem(error, waited) from error
                if waited >= TOLD_AFTER and not told:
                    told = True
                    logger.warning(
                        "label_store: %s: %s waits: %s; nothing is asked meanwhile",
                        self.path,
                        what,
                        _words(error),
                    )
                time.sleep(pause)
                pause = min(1.0, 2 * pause)

    def problem(self, error: sqlite3.Error, waited: float = 0.0) -> LabelStoreError:
        """``error`` in one sentence."""
        after = f" (waited {waited:.0f} s)" if waited >= 1 else ""
        advice = full_disk(self.path, error)
        if _is_damage(error):
            advice = f"; `recbole-alkd store repair --store {self.path}` saves what can be read"
        return LabelStoreError(f"label_store: {str(self.path)!r}: {_words(error)}{after}{advice}")


def connect(target: Path | str) -> sqlite3.Connection:
    """A connection to a file, or to what a URI names."""
    db = sqlite3.connect(
        target, timeout=_STEP, isolation_level=None, check_same_thread=False, uri=isinstance(target, str)
    )
    db.text_factory = _text
    return db


def _text(data: bytes) -> str | bytes:
    """Text, which may hold half a surrogate pair. Bytes that are none stay bytes,
    so that the reader can name their row."""
    try:
        return str(data, "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _patience(error: sqlite3.Error) -> float:
    text = str(error).lower()
    if not isinstance(error, sqlite3.OperationalError):
        return 0.0
    if "locked" in text or "busy" in text:
        return LOCKED_SECONDS
    return FAULT_SECONDS if any(word in text for word in _FAULTS) else 0.0


def full_disk(path: Path, error: sqlite3.Error) -> str:
    """Words for an I/O error that is a full disk, as SQLite calls it where a file that processes share does
    not fit; "" for others."""
    with contextlib.suppress(OSError):
        if "disk i/o" not in str(error).lower():
            return ""
        left = shutil.disk_usage(path.parent).free
        if left < _LITTLE:
            return f"; its disk has {left // 1024} KiB left"
    return ""


def _is_damage(error: BaseException) -> bool:
    return any(word in str(error).lower() for word in _DAMAGE)


def _words(error: BaseException) -> str:
    text = str(error).replace("\n", " ")
    if "locked" in text:
        return f"another process holds it ({text})"
    return f"the file is damaged ({text})" if _is_damage(error) else text
