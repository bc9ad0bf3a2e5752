"""Hints in the label store: what an LLM wrote once for every ranking prompt, with what it cost.

Like a label, they are durable when ``put_hints`` returns, and a key is stored once, whoever comes first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recbole_alkd.labels.cost import Cost, read_cost
from recbole_alkd.labels.label import read_time
from recbole_alkd.labels.store import LabelStore, LabelStoreError

_SELECT = """SELECT key, rules, raw, prompt_tokens, completion_tokens, seconds, usd, teachers.name, time
    FROM hints JOIN teachers ON teachers.id = teacher"""


@dataclass(frozen=True)
class Hints:
    """The rules that one request gave.

    Attributes:
        key: a hash of everything that decides them. rules: one line each, possibly none.
            raw: the answer as it came.
        prompt_tokens, completion_tokens, seconds, usd, teacher, time: as in ``Label``.
    """

    key: str
    rules: tuple[str, ...]
    raw: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    usd: float | None = None
    teacher: str = ""
    time: float | None = None

    @property
    def cost(self) -> Cost:
        """What the request took."""
        return Cost(self.prompt_tokens, self.completion_tokens, self.seconds, self.usd)


def get_hints(store: LabelStore, key: str) -> Hints | None:
    """The hints called ``key``, or None. LabelStoreError when what is stored is no list of lines."""
    if not _has_hints(store):
        return None
    return next((_hints(store, row) for row in store.query(f"{_SELECT} WHERE key = ?", [key])), None)


def all_hints(store: LabelStore) -> Iterator[Hints]:
    """All hints, by key."""
    if _has_hints(store):
        yield from (_hints(store, row) for row in store.query(f"{_SELECT} ORDER BY key"))


def _has_hints(store: LabelStore) -> bool:
    """Not a store of the first release that is on a read-only disk, where no table can be added."""
    return bool(store.query("SELECT 1 FROM sqlite_master WHERE name = 'hints'"))


def put_hints(store: LabelStore, hints: Hints) -> bool:
    """Store ``hints``; durable on return. False when the key exists, whose hints then stay as they are."""
    cost = read_cost(hints.prompt_tokens, hints.completion_tokens, hints.seconds, hints.usd)
    row = [
        hints.key,
        json.dumps(hints.rules),
        hints.raw.encode("utf-8", "surrogatepass"),
        *vars(cost).values(),
        read_time(hints.time),
        hints.teacher,
    ]

    def insert(db: sqlite3.Connection) -> bool:
        db.execute("INSERT OR IGNORE INTO teachers (name) VALUES (?)", [hints.teacher])
        done = db.execute(
            """INSERT OR IGNORE INTO hints (key, rules, raw, prompt_tokens, completion_tokens, seconds, usd,
            time, teacher)
            SELECT ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, id FROM teachers WHERE name = ?""",
            row,
        )
        return done.rowcount == 1

    return store.write(insert)


def _hints(store: LabelStore, row: tuple[Any, ...]) -> Hints:
    key, rules, *rest = row
    try:
        lines = json.loads(rules)
    except (ValueError, TypeError, RecursionError):
        lines = None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise LabelStoreError(f"label_store: {str(store.path)!r}: the hints {key} are not readable")
    return Hints(key, tuple(lines), *rest)
