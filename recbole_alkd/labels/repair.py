"""Saves what can be read of a damaged label store in a new file in its place; the damaged one is kept."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_alkd.labels.cost import read_cost
from recbole_alkd.labels.damage import (
    FAILURES,
    HINTS,
    pairs,
    problem_of,
    problems_of,
    rows,
    rules_of,
    shown,
    verify,
)
from recbole_alkd.labels.file import LabelStoreError, connect
from recbole_alkd.labels.hints import Hints, put_hints
from recbole_alkd.labels.label import Label, read_time
from recbole_alkd.labels.owner import is_alive
from recbole_alkd.labels.store import APPLICATION_ID, LabelStore
from recbole_alkd.settings.error import AlkdError

_PAGE = 1000
_TABLES = {"labels", "answers", "teachers", "failures", "claims"}


@dataclass
class Rescue:
    """What ``repair`` did.

    Attributes:
        labels, hints: how many are in the new file. lost: one sentence for every row that is not.
        damaged: where the damaged file is now; None when nothing was wrong.
    """

    labels: int = 0
    hints: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: Path | None = None


def repair(path: Path) -> Rescue:
    """Put everything that can be read of the store at ``path`` into a new file in its place; the damaged one
    is kept beside it. A store that is well stays as it is.

    Raises:
        AlkdError: there is no such file, it cannot be read at all, or a living process uses it.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise AlkdError(f"label_store: there is no file {str(path)!r}")
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.repair-", dir=path.parent))
    try:
        copy = work / "damaged"  # opening a file of SQLite's may write to it
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        db, as_it_was = _open_copy(copy, path)
        try:
            _refuse_while_used(db, path)
            if as_it_was and not list(problems_of(db)):
                return Rescue()
            with LabelStore(work / "new") as store:
                rescue = _save(db, store)
                problems = verify(store)
        finally:
            db.close()
        if problems:
            raise LabelStoreError(
                f"label_store: {str(path)!r}: what was saved of it is not well: {problems[0]}"
            )
        rescue.damaged = _put_aside(path)
        os.replace(work / "new", path)
        return rescue
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _open_copy(copy: Path, path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection to the copy, and whether its first page, which describes the tables, is the file's own:
    where that is damaged, it is the one of a new store."""
    reason = ""
    for own, last_try in ((True, False), (False, False), (False, True)):
        if not own and not last_try:
            _renew_first_page(copy)
        db = connect(copy)
        try:
            tables = {
                name
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            }
            for table in ("labels", "answers"):
                db.execute(
                    f"SELECT {'1' if last_try else 'max(rowid)'} FROM {table} LIMIT {0 if last_try else 1}"
                ).fetchall()
            if tables >= _TABLES and db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
                return db, own
            reason = "it is no label store"
        except sqlite3.Error as error:
            reason = str(error)
        db.close()
    raise LabelStoreError(f"label_store: nothing can be read of {str(path)!r}: {reason}")


def _renew_first_page(copy: Path) -> None:
    """Stores that this release made have their tables in the same places, so that one can lend another its
    first page."""
    with LabelStore(copy.with_name("fresh")) as store:
        (size,) = store.query("PRAGMA page_size")[0]
    page = bytearray(copy.with_name("fresh").read_bytes()[:size])
    pages = copy.stat().st_size // size
    page[28:40] = struct.pack(">III", pages, 0, 0)  # pages in all; none is known to be free
    page[92:96] = page[24:28]
    if pages > 1:  # else there is nothing behind it
        with copy.open("r+b") as stream:
            stream.write(page)


def _refuse_while_used(db: sqlite3.Connection, path: Path) -> None:
    try:
        owners = [owner for (owner,) in db.execute("SELECT DISTINCT owner FROM claims").fetchall()]
    except sqlite3.Error:
        return
    for owner in owners:
        if isinstance(owner, str) and is_alive(owner.rpartition(".")[0]):
            raise AlkdError(
                f"label_store: {str(path)!r} is used by process {owner.rsplit('/', 2)[1]}; end it first"
            )


def _save(db: sqlite3.Connection, store: LabelStore) -> Rescue:
    rescue = Rescue()
    teachers = {
        number: name
        for number, name in rows(db, "teachers", "id, name", rescue.lost)
        if isinstance(name, str)
    }
    page: list[Label] = []
    for number, row, answer in pairs(db, rescue.lost):
        if row is None:
            rescue.lost.append(f"answer {number}: its label cannot be read")
            continue
        problem = "its answer cannot be read"
        if answer is not None:
            # numbers and the teacher's name may be lost: the ranking is worth its price without them
            problem = problem_of((*row[:4], 0, 0, 0.0, None, None), answer, teachers.get(row[3], "")) or ""
        if answer is None or problem:
            rescue.lost.append(f"label {shown(row[1])}: {problem}")
            _keep_cost(store, row, teachers)
            continue
        _, ranking, candidates, repairs, raw = answer
        texts = {
            "ranking": json.loads(ranking),
            "candidates": json.loads(candidates),
            "repairs": json.loads(repairs),
            "raw": raw,
        }
        page.append(
            Label(key=row[1], status=row[2], **texts, **_numbers(*row[4:]), teacher=teachers.get(row[3], ""))
        )
        if len(page) == _PAGE:
            rescue.labels += store.put_many(page)
            page = []
    rescue.labels += store.put_many(page)
    for row in rows(db, "hints", HINTS, rescue.lost):
        rules = rules_of(row[2])
        if rules is None or not (isinstance(row[1], str) and isinstance(row[3], str)):
            rescue.lost.append(f"hints {shown(row[1])}: not readable")
            continue
        hints = Hints(row[1], tuple(rules), row[3], **_numbers(*row[5:]), teacher=teachers.get(row[4], ""))
        rescue.hints += put_hints(store, hints)
    for row in rows(db, "failures", FAILURES, rescue.lost):
        _keep_cost(store, (0, row[1], "failed", row[2], *row[3:8]), teachers, row[8])
    return rescue


def _numbers(prompt: Any, completion: Any, seconds: Any, usd: Any, when: Any) -> dict[str, Any]:
    """Numbers that cannot be read are unknown: the ranking beside them is worth its price."""
    return {**vars(read_cost(prompt, completion, seconds, usd)), "time": read_time(when)}


def _keep_cost(store: LabelStore, row: tuple[Any, ...], teachers: dict[int, str], raw: Any = "") -> None:
    """What a label took stays on the bill, also where its ranking is lost."""
    numbers, name = _numbers(*row[4:9]), teachers.get(row[3], "")
    values = [
        shown(row[1]),
        *numbers.values(),
        (raw if isinstance(raw, str) else "").encode("utf-8", "surrogatepass"),
        name,
    ]

    def insert(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR IGNORE INTO teachers (name) VALUES (?)", [name])
        db.execute(
            """INSERT INTO failures (key, prompt_tokens, completion_tokens, seconds, usd, time, raw, teacher)
            SELECT ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), id FROM teachers WHERE name = ?""",
            values,
        )

    store.write(insert)


def _put_aside(path: Path) -> Path:
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.damaged" if number == 1 else f"{path.name}.damaged-{number}")
        if not aside.exists():
            break
        number += 1
    for suffix in ("-wal", "-shm", ""):
        if Path(f"{path}{suffix}").exists():
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    return aside
