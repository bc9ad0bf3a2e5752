"""The kind of question of ``alkd_unit: item``: which of these K would people who chose X choose next?

An answer is a ranking of candidates as that about a session is, is kept as a ``Label`` and found by the
same kind of key. A key holds the text of the prompt, which is another one for items: no LLM's label of a
session answers for an item.
"""

from __future__ import annotations

from collections.abc import Sequence

from recbole_alkd.labelling.rankings import Rankings
from recbole_alkd.teacher.base import Instance, LLMTeacher


class ItemAnswers(Rankings):
    """Answers about items by one teacher, kept as labels."""

    name = "item"
    things = "labels of items"


_KINDS: dict[str, type[Rankings]] = {kind.name: kind for kind in (Rankings, ItemAnswers)}


def kind_of(teacher: LLMTeacher, instances: Sequence[Instance]) -> Rankings:
    """The kind of the questions about ``instances``, which are all sessions or all items.

    Raises:
        ValueError: instances of several kinds.
    """
    kinds = {instance.kind for instance in instances} or {Rankings.name}
    if len(kinds) > 1:
        raise ValueError(f"instances of several kinds: {sorted(kinds)}")
    return _KINDS[kinds.pop()](teacher)
