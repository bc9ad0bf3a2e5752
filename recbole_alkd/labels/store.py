"""The durable store of labels: one SQLite file for every run, process and policy.

A label is one LLM ranking of one instance. Labels cost money or hours, so the store keeps three promises:
when ``put`` returns, the label survives a killed process and a power cut; a key is stored once, whoever comes
first; any number of processes may read and write at the same time.
SQLite in WAL mode with ``synchronous=FULL`` does the work.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from recbole_alkd.labels.file import LOCKED_SECONDS, LabelStoreError, StoreFile, full_disk
from recbole_alkd.labels.label import STATUSES, Label, from_row, label_key, to_row
from recbole_alkd.labels.label_rows import SELECT_LABEL, insert_label

__all__ = ["STATUSES", "Label", "LabelStore", "LabelStoreError", "label_key"]

T = TypeVar("T")
APPLICATION_ID = 0x414C4B44  # "ALKD": tells a label store from any other SQLite file
_PAGE = 500


# MIGRATIONS[v] are the statements that take a store from schema version v to v + 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # what is counted and summed stands apart from the bulk of the answers,
        # so that a million labels are listed in seconds
        """CREATE TABLE labels (
            id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, status TEXT NOT NULL, teacher INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL,
            usd REAL, time REAL)""",
        """CREATE TABLE answers (
            id INTEGER PRIMARY KEY, ranking TEXT NOT NULL, candidates TEXT NOT NULL, repairs TEXT NOT NULL,
            raw TEXT NOT NULL)""",
        "CREATE TABLE teachers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        "CREATE INDEX labels_status ON labels (status)",
        # failed answers that an ok one has replaced: they were paid for, so the bill still needs them
        """CREATE TABLE failures (
            key TEXT NOT NULL, teacher INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            seconds REAL NOT NULL, usd REAL, time REAL, raw TEXT NOT NULL)""",
        "CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        """CREATE TABLE hints (
            key TEXT PRIMARY KEY, rules TEXT NOT NULL, raw TEXT NOT NULL, teacher INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL,
            usd REAL, time REAL)""",
    ),
)


class LabelStore:
    """Labels by key, in one SQLite file that is made when it does not exist, with its folder.

    Use it as a context manager, or call ``close``. One object may be shared by threads; another process opens
    its own. The file must be on a local disk: WAL mode needs shared memory.

    A failed label keeps its key from being asked again by the next run. A later ok answer for the same key
    replaces it (``put`` returns True) and the failed one moves aside, so that what it cost stays on the bill.
    An ok label is never replaced.

    Example:
        >>> with LabelStore("alkd_labels/labels.sqlite") as store:
        ...     store.put(Label(key="k", ranking=("85123A", "22423")))
        True

    A store on a read-only disk, or in a folder that cannot be written, is read; ``put`` is a LabelStoreError
    then, as it is for a store whose structure is damaged.

    Attributes:
        path: where it is.
        readonly: whether it can only be read.

    Raises:
        LabelStoreError: the file is no label store, is damaged, cannot be opened, or is of a newer version;
            later, that a read or a write was given up.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        self._file = StoreFile(self.path)
        self.readonly = self._file.readonly
        try:
            self._open()
        except sqlite3.Error as error:
            self._file.close()
            what = (
                "is not a label store"
                if "not a database" in str(error)
                else "cannot be used as a label store"
            )
            full = full_disk(self.path, error)
            raise LabelStoreError(f"label_store: {str(self.path)!r} {what}: {error}{full}") from error
        except LabelStoreError:
            self._file.close()
            raise

    def _open(self) -> None:
        db = self._file.db
        db.execute("PRAGMA synchronous = FULL")
        version = self._version()
        if version < len(MIGRATIONS) and not self.readonly:
            self._use_wal()
            with self._file.transaction() as db:
                # another process may have been faster
                for statements in MIGRATIONS[self._version() :]:
                    for statement in statements:
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        self._file.note_place()

    def _version(self) -> int:
        application, version, tables = self._file.db.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application != APPLICATION_ID and (tables or application or version or self.readonly):
            raise LabelStoreError(
                f"label_store: {str(self.path)!r} is an SQLite file but not a label store; give another path"
            )
        if version > len(MIGRATIONS):
            raise LabelStoreError(
                f"label_store: {str(self.path)!r} has schema version {version}; "
                "this release of recbole_alkd knows versions "
                f"up to {len(MIGRATIONS)}: use a newer release"
            )
        return int(version)

    def _use_wal(self) -> None:
        # the switch to WAL needs the file for itself for a moment, and SQLite does not always wait for that
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                self._file.db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def transaction(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """The connection, inside of one write transaction: all of it is stored durably, or nothing."""
        return self._file.transaction()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` inside of one write transaction, tried again while the store is locked or the disk is
        full."""
        return self._file.write(work)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one SELECT, outside of a transaction."""
        return self._file.read(sql, values)

    def check_writable(self) -> None:
        """LabelStoreError where nothing can be put: before anything is paid for."""
        self._file.check_writable()

    def check_place(self) -> None:
        """StoreGoneError where the file was deleted or moved since it was opened."""
        self._file.check_place()

    def connection(self) -> StoreFile:
        """One more connection to the same file, which waits for no other thread of this process."""
        return StoreFile(self.path)

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that reads only, for long listings.

        Its text is decoded by SQLite's module itself, which takes a half of the time, and fails on raw
        answers that are no valid UTF-8: it is not for them.
        """
        file = self.connection()
        try:
            file.db.text_factory = str
            file.db.execute("PRAGMA query_only = TRUE")
            yield file.db
        except sqlite3.Error as error:
            raise file.problem(error) from error
        finally:
            file.close()

    def get(self, key: str) -> Label | None:
        """The label of ``key``, ok or failed, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Label]:
        """The labels of those ``keys`` that are stored."""
        labels = {}
        for start in range(0, len(keys), _PAGE):
            page = list(keys[start : start + _PAGE])
            for row in self.query(f"{SELECT_LABEL} WHERE key IN ({', '.join('?' * len(page))})", page):
                labels[row[0]] = self._read(row)
        return labels

    def _read(self, row: tuple[Any, ...]) -> Label:
        try:
            return from_row(row)
        except (ValueError, TypeError, RecursionError) as error:
            raise LabelStoreError(
                f"label_store: {str(self.path)!r}: label {row[0]!r} cannot be read ({error}); "
                f"`recbole-alkd store verify --store {self.path}` names all such labels, "
                "`store repair` saves the others"
            ) from None

    def put(self, label: Label) -> bool:
        """Store ``label``; durable on return.

        Returns:
            True when it was stored; False when the key exists, whose label then stays as it is (first wins).
            An ok label for a key that has only failed is stored, and replaces the failed label.
        """
        return self.put_many([label]) == 1

    def put_many(self, labels: Iterable[Label]) -> int:
        """Store ``labels`` in one transaction; durable on return.
        How many were stored; see ``put`` for the others."""
        rows = [(label, to_row(label)) for label in labels]

        def insert(db: sqlite3.Connection) -> int:
            db.executemany(
                "INSERT OR IGNORE INTO teachers (name) VALUES (?)", {(row[0][2],) for _, row in rows}
            )
            return sum(insert_label(db, label, row) for label, row in rows)

        return self.write(insert)

    def keys(self) -> Iterator[str]:
        """The keys of all labels, sorted. Reads an index only."""
        last = ""
        while page := self.query("SELECT key FROM labels WHERE key > ? ORDER BY key LIMIT 50000", [last]):
            yield from (key for (key,) in page)
            last = page[-1][0]

    def __iter__(self) -> Iterator[Label]:
        """All labels in the order in which they were stored; labels that arrive meanwhile are included."""
        # by pages: an open cursor would keep the write-ahead log from being folded back into the file
        last = 0
        while page := self.query(
            f"{SELECT_LABEL} WHERE labels.id > ? ORDER BY labels.id LIMIT {_PAGE}", [last]
        ):
            yield from map(self._read, page)
            last = page[-1][-1]

    def counts(self) -> dict[str, int]:
        """How many labels there are, by status: ``{"ok": n, "failed": n}``."""
        return {
            **dict.fromkeys(STATUSES, 0),
            **dict(self.query("SELECT status, count(*) FROM labels GROUP BY status")),
        }

    def __len__(self) -> int:
        return sum(self.counts().values())

    def __contains__(self, key: object) -> bool:
        return (
            bool(self.query("SELECT 1 FROM labels WHERE key = ?", [key])) if isinstance(key, str) else False
        )

    def close(self) -> None:
        """Close the file. Everything that was put is there already."""
        self._file.close()

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_label_store(path: str | os.PathLike[str]) -> None:
    """LabelStoreError where ``path`` can be no label store, or is a damaged one:
    to be known before anything is trained.

    Nothing is made where there is no file yet.
    """
    file = Path(path).expanduser().absolute()
    if file.is_dir() or (file.is_file() and file.stat().st_size):
        with LabelStore(file) as store:
            if not store.readonly:
                store.check_writable()
        return
    folder = next(parent for parent in file.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written" if folder.is_dir() else "is no folder"
        raise LabelStoreError(f"label_store: {str(file)!r} cannot be made: {str(folder)!r} {what}")
