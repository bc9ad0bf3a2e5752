"""A label as the rows of a label store's file: how it is read, and how it is put there."""

from __future__ import annotations

import sqlite3
from typing import Any

from recbole_alkd.labels.label import Label

_JOINED = "labels JOIN answers ON answers.id = labels.id JOIN teachers ON teachers.id = labels.teacher"
SELECT_LABEL = f"""SELECT key, ranking, candidates, raw, repairs, prompt_tokens, completion_tokens, seconds,
    usd, status, teachers.name, time, labels.id FROM {_JOINED}"""


def insert_label(db: sqlite3.Connection, label: Label, row: tuple[tuple[Any, ...], tuple[Any, ...]]) -> bool:
    """Store a label, as ``LabelStore.put`` has it; ``row``: what ``Label`` is in ``labels`` and
    ``answers``."""
    if label.status == "ok":
        # where the key has a failed label, it moves aside
        moved = db.execute(
            """INSERT INTO failures
            SELECT key, teacher, prompt_tokens, completion_tokens, seconds, usd, time, raw
            FROM labels JOIN answers ON answers.id = labels.id WHERE key = ? AND status = 'failed'""",
            [label.key],
        )
        if moved.rowcount:
            db.execute("DELETE FROM answers WHERE id = (SELECT id FROM labels WHERE key = ?)", [label.key])
            db.execute("DELETE FROM labels WHERE key = ?", [label.key])
    numbers, texts = row
    inserted = db.execute(
        """INSERT INTO labels (key, status, teacher, prompt_tokens, completion_tokens, seconds, usd, time)
        VALUES (?, ?, (SELECT id FROM teachers WHERE name = ?), ?, ?, ?, ?, ?)
        ON CONFLICT (key) DO NOTHING""",
        numbers,
    )
    if inserted.rowcount:
        # the raw answer comes as bytes: an LLM's JSON can hold half of a surrogate pair,
        # which is no valid UTF-8
        db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, CAST(? AS TEXT))", (inserted.lastrowid, *texts))
    db.execute("DELETE FROM claims WHERE key = ?", [label.key])
    return inserted.rowcount == 1
