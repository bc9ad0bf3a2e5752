"""Looking into a label store, and moving labels between stores and files.
``recbole-alkd store`` is made of these."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from recbole_alkd.labels.damage import verify
from recbole_alkd.labels.hints import all_hints, put_hints
from recbole_alkd.labels.repair import repair
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.labels.transfer import export_labels, import_labels, put_all
from recbole_alkd.settings.error import AlkdError

__all__ = [
    "Line",
    "TeacherStats",
    "count_of_teacher",
    "export_labels",
    "import_labels",
    "list_labels",
    "merge",
    "open_existing",
    "repair",
    "stats",
    "verify",
]

_LINES = 2000  # of a listing that are read at once


class Line(NamedTuple):
    """A label without its answer, for listings."""

    key: str
    status: str
    teacher: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    usd: float | None
    time: float | None


# half of the time of Line(*row), a million times
_line: Callable[[tuple[Any, ...]], Line] = partial(tuple.__new__, Line)


@dataclass(frozen=True)
class TeacherStats:
    """What one teacher's labels took. ``replaced``: failed labels that an ok one has replaced, and ``hints``:
    requests for hints; the cost of both is included."""

    teacher: str
    ok: int
    failed: int
    replaced: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    usd: float | None
    first: float | None
    last: float | None
    hints: int = 0


def list_labels(store: LabelStore, status: str | None = None, teacher: str | None = None) -> Iterator[Line]:
    """The labels in the order in which they were stored.

    Args:
        status: only these ("ok" or "failed").
        teacher: only those whose teacher's name holds this text.
    """
    where = ""
    values: list[str] = []
    if status is not None:
        where, values = f"{where} AND status = ?", [*values, status]
    if teacher is not None:
        where, values = (
            f"{where} AND instr((SELECT name FROM teachers WHERE id = teacher), ?)",
            [*values, teacher],
        )
    sql = f"""SELECT key, status, (SELECT name FROM teachers WHERE id = teacher),
    prompt_tokens, completion_tokens, seconds, usd,
        time FROM labels WHERE id > ?{where} ORDER BY id LIMIT {_LINES}"""
    last = 0
    page: list[Any] = [()]
    with store.reader() as db:
        while page:
            # one view of the store: a label may be replaced, under another id, in the meantime
            db.execute("BEGIN")
            page = db.execute(sql, [last, *values]).fetchall()
            if page:
                ((last,),) = db.execute("SELECT id FROM labels WHERE key = ?", page[-1][:1])
            db.execute("COMMIT")
            yield from map(_line, page)


def count_of_teacher(path: Path, beginning: str) -> int:
    """How many usable labels the store in ``path`` has of teachers whose names begin so;
    0 without a readable store."""
    if not path.is_file():
        return 0
    sql = """SELECT count(*) FROM labels WHERE status = 'ok'
        AND substr((SELECT name FROM teachers WHERE id = teacher), 1, ?) = ?"""
    try:
        with LabelStore(path) as store:
            return int(store.query(sql, (len(beginning), beginning))[0][0])
    except (AlkdError, sqlite3.Error):
        return 0


def stats(store: LabelStore) -> list[TeacherStats]:
    """What the labels of every teacher took, the teacher with the most labels first."""
    rows = store.query(
        """SELECT name, sum(status = 'ok'), sum(status = 'failed'), sum(status = 'replaced'),
        sum(prompt_tokens),
            sum(completion_tokens), sum(seconds), sum(usd), min(time), max(time), sum(status = 'hints')
        FROM (
            SELECT teacher, status, prompt_tokens, completion_tokens, seconds, usd, time FROM labels UNION ALL
            SELECT teacher, 'replaced', prompt_tokens, completion_tokens, seconds, usd, time
            FROM failures UNION ALL
            SELECT teacher, 'hints', prompt_tokens, completion_tokens, seconds, usd, time FROM hints
        ) JOIN teachers ON teachers.id = teacher GROUP BY teacher ORDER BY count(*) DESC, name"""
    )
    return [TeacherStats(*row) for row in rows]


def merge(store: LabelStore, other: LabelStore) -> tuple[int, int]:
    """Put the labels and hints of ``other`` into ``store``. (read, stored) labels: a key that exists stays,
    unless only ``other``'s is ok."""
    counts = put_all(store, other)
    for hints in all_hints(other):
        put_hints(store, hints)
    rows = other.query(
        """SELECT name, key, prompt_tokens, completion_tokens, seconds, usd, time, raw
        FROM failures JOIN teachers ON teachers.id = teacher"""
    )
    with store.transaction() as db:
        for name, *row in rows:
            db.execute("INSERT OR IGNORE INTO teachers (name) VALUES (?)", [name])
            db.execute(
                """INSERT INTO failures (teacher, key, prompt_tokens, completion_tokens, seconds, usd,
                time, raw)
                SELECT id, ?1, ?2, ?3, ?4, ?5, ?6, CAST(?7 AS TEXT) FROM teachers WHERE name = ?8
                AND NOT EXISTS (SELECT 1 FROM failures
                 WHERE key = ?1 AND time IS ?6 AND raw = CAST(?7 AS TEXT))""",
                [*row[:-1], row[-1].encode("utf-8", "surrogatepass"), name],
            )
    return counts


def open_existing(path: Path) -> LabelStore:
    """The store at ``path``; AlkdError where there is none, in place of a new one."""
    if path.exists() and not path.is_file():
        raise AlkdError(f"label_store: {str(path)!r} is a folder; give the file in it")
    if not path.is_file():
        raise AlkdError(f"label_store: there is no file {str(path)!r}")
    return LabelStore(path)
