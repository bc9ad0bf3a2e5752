"""Hints in the label store: what an LLM wrote once for every ranking prompt, with what it cost.

Like a label, they are durable when ``put_hints`` returns, and a key is stored once, whoever comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from recbole_alkd.labels.store import LabelStore, LabelStoreError

_SELECT = """SELECT key, rules, raw, prompt_tokens, completion_tokens, seconds, usd, teachers.name, time
    FROM hints JOIN teachers ON teachers.id = teacher"""


@dataclass(frozen=True)
class Hints:
    """The rules that one request gave.

    Attributes:
        key: a hash of everything that decides them. rules: one line each, possibly none. raw: the answer as it came.
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


def get_hints(store: LabelStore, key: str) -> Hints | None:
    """The hints called ``key``, or None. LabelStoreError when what is stored is no list of lines."""
    return next((_hints(store, row) for row in store.query(f"{_SELECT} WHERE key = ?", [key])), None)


def all_hints(store: LabelStore) -> Iterator[Hints]:
    """All hints, by key."""
    yield from (_hints(store, row) for row in store.query(f"{_SELECT} ORDER BY key"))


def put_hints(store: LabelStore, hints: Hints) -> bool:
    """Store ``hints``; durable on return. False when the key exists, whose hints then stay as they are."""
    raw = hints.raw.encode("utf-8", "surrogatepass")
    rules = json.dumps(hints.rules)
    with store.transaction() as db:
        db.execute("INSERT OR IGNORE INTO teachers (name) VALUES (?)", [hints.teacher])
        done = db.execute(
            """INSERT OR IGNORE INTO hints (key, rules, raw, prompt_tokens, completion_tokens, seconds, usd, time, teacher)
            SELECT ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, id FROM teachers WHERE name = ?""",
            [
                hints.key, rules, raw, hints.prompt_tokens, hints.completion_tokens, hints.seconds, hints.usd, hints.time,
                hints.teacher,
            ],
        )  # fmt: skip
        return done.rowcount == 1


def _hints(store: LabelStore, row: tuple) -> Hints:
    key, rules, *rest = row
    try:
        lines = json.loads(rules)
    except ValueError:
        lines = None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise LabelStoreError(f"label_store: {str(store.path)!r}: the hints {key} are not readable")
    return Hints(key, tuple(lines), *rest)
