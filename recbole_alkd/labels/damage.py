"""A label store whose file may be damaged: what can be read of it, row by row,
and what is wrong with the rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from recbole_alkd.labels.cost import read_amount, read_count
from recbole_alkd.labels.label import STATUSES, read_time
from recbole_alkd.labels.store import LabelStore

_PAGE = 1000
_LABELS = "id, key, status, teacher, prompt_tokens, completion_tokens, seconds, usd, time"
_ANSWERS = "id, ranking, candidates, repairs, raw"
HINTS = "rowid, key, rules, raw, teacher, prompt_tokens, completion_tokens, seconds, usd, time"
FAILURES = "rowid, key, teacher, prompt_tokens, completion_tokens, seconds, usd, time, raw"


def verify(store: LabelStore) -> list[str]:
    """What is wrong with the file or with single labels, one sentence each; empty when all is well.
    Everything is read."""
    file = store.connection()
    try:
        return list(problems_of(file.db))
    finally:
        file.close()


def problems_of(db: sqlite3.Connection) -> Iterator[str]:
    """``verify`` of an open connection."""
    try:
        problems = [text for (text,) in db.execute("PRAGMA integrity_check").fetchall()]
    except sqlite3.Error as error:
        problems = [str(error)]
    yield from (
        f"file: {line}"
        for text in problems
        if text != "ok"
        for line in str(text).splitlines()
        if not line.startswith("***")
    )
    broken: list[str] = []
    teachers = dict(rows(db, "teachers", "id, name", broken))
    lacking, nameless, lone, odd = [], [], [], []
    for number, label, answer in pairs(db, broken):
        if label is None:
            lone.append(f"answer without a label: {number}")
            continue
        key = shown(label[1])
        if label[3] not in teachers:
            nameless.append(f"label without a teacher: {key}")
        if answer is None:
            lacking.append(f"label without an answer: {key}")
        elif problem := problem_of(label, answer, teachers.get(label[3], "")):
            odd.append(f"label {key}: {problem}")
    yield from (*lacking, *nameless, *lone, *odd)
    for row in rows(db, "hints", HINTS, broken):
        if rules_of(row[2]) is None or not isinstance(row[3], str) or row[4] not in teachers:
            yield f"hints {shown(row[1])}: not readable"
    for row in rows(db, "failures", FAILURES, broken):
        if not isinstance(row[8], str) or None in (read_count(row[3]), read_count(row[4])):
            yield f"replaced label {shown(row[1])}: not readable"
    yield from broken


def problem_of(label: tuple[Any, ...], answer: tuple[Any, ...], teacher: Any) -> str | None:
    """What is wrong with one label: its row of ``labels``, its row of ``answers``, its teacher's name;
    None where nothing is."""
    _, key, status, _, prompt, completion, seconds, usd, when = label
    _, ranking, candidates, repairs, raw = answer
    try:
        items, offered, repaired = json.loads(ranking), json.loads(candidates), json.loads(repairs)
    except (ValueError, TypeError, RecursionError):
        return "not readable as JSON"
    if not all(
        isinstance(part, list) and all(isinstance(token, str) for token in part) for part in (items, offered)
    ):
        return "ranking and candidates must be lists of item tokens"
    if not isinstance(repaired, dict):
        return "repairs must be a mapping"
    if not all(isinstance(text, str) for text in (key, raw, teacher)):
        return "a text is no valid UTF-8"
    if status not in STATUSES:
        return f"status {status!r} is not allowed; allowed: {' | '.join(STATUSES)}"
    if len(set(items)) < len(items):
        return "an item is ranked twice"
    if (status == "ok") != bool(items):
        return "ok without a ranking" if status == "ok" else "failed with a ranking"
    if offered and teacher.startswith(("api|", "local|")) and not set(items) <= set(offered):
        return "an item is ranked that was not offered"
    counts = read_count(prompt), read_count(completion), read_amount(seconds)
    if (
        None in counts
        or (usd is not None and read_amount(usd) is None)
        or (when is not None and read_time(when) is None)
    ):
        return "tokens, seconds, USD or time are no numbers"
    return None


def pairs(
    db: sqlite3.Connection, broken: list[str]
) -> Iterator[tuple[int, tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """(number, row of ``labels``, row of ``answers``), by number; what cannot be read is None and named in
    ``broken``."""
    last = max(_last(db, table, broken) for table in ("labels", "answers"))
    for start in range(1, last + 1, _PAGE):
        end = min(start + _PAGE - 1, last)
        labels = {row[0]: row for row in _between(db, _sql("labels", _LABELS), "labels", start, end, broken)}
        answers = {
            row[0]: row for row in _between(db, _sql("answers", _ANSWERS), "answers", start, end, broken)
        }
        for number in sorted(labels.keys() | answers.keys()):
            yield number, labels.get(number), answers.get(number)


def rows(db: sqlite3.Connection, table: str, columns: str, broken: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table by number; what cannot be read is named in ``broken`` and left out."""
    last = _last(db, table, broken)
    for start in range(1, last + 1, _PAGE):
        yield from _between(db, _sql(table, columns), table, start, min(start + _PAGE - 1, last), broken)


def _sql(table: str, columns: str) -> str:
    number = columns.partition(",")[0]
    return f"SELECT {columns} FROM {table} WHERE {number} BETWEEN ? AND ? ORDER BY {number}"


def _last(db: sqlite3.Connection, table: str, broken: list[str]) -> int:
    """The largest row number, or where that cannot be read how many rows the file can hold;
    0 without such a table."""
    try:
        return db.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except sqlite3.OperationalError as error:
        # which a store of the first release does not have
        if table != "hints" or "no such table" not in str(error):
            broken.append(f"{table}: cannot be read ({error})")
        return 0
    except sqlite3.DatabaseError as error:
        broken.append(f"{table}: its last row cannot be read ({error})")
    try:
        return int(db.execute("PRAGMA page_count").fetchone()[0]) * 50
    except sqlite3.DatabaseError:
        return 0


def _between(
    db: sqlite3.Connection, sql: str, table: str, low: int, high: int, broken: list[str]
) -> Iterable[tuple[Any, ...]]:
    try:
        return db.execute(sql, [low, high]).fetchall()
    except (sqlite3.DatabaseError, OverflowError, MemoryError) as error:
        if low == high:
            broken.append(f"{table}, row {low}: cannot be read ({error})")
            return []
    middle = (low + high) // 2
    return [
        *_between(db, sql, table, low, middle, broken),
        *_between(db, sql, table, middle + 1, high, broken),
    ]


def rules_of(text: Any) -> list[str] | None:
    """The lines of stored hints, or None where they are none."""
    try:
        lines = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return lines if isinstance(lines, list) and all(isinstance(line, str) for line in lines) else None


def shown(key: Any) -> str:
    """A key in words, whatever stands in its place."""
    return key if isinstance(key, str) else repr(key)
