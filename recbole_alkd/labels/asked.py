"""What the label store tells about an LLM that was asked before."""

from __future__ import annotations

from recbole_alkd.labels.store import LabelStore


def has_rankings(store: LabelStore, teacher: str) -> bool:
    """Whether ``teacher``, an ``LLMTeacher.identity``, has given any ranking."""
    rankings = store.query(
        "SELECT 1 FROM labels WHERE status = 'ok' AND teacher = (SELECT id FROM teachers WHERE name = ?) "
        "LIMIT 1",
        [teacher],
    )
    return bool(rankings)
