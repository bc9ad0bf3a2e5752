"""What the commands on a bundle print: tables, JSON lines, lists side by side."""

from __future__ import annotations

from typing import Any

from recbole_alkd.files import json_text
from recbole_alkd.serving.labelled import COLUMNS
from recbole_alkd.serving.recommender import Recommender

_WIDTH = 26  # characters of a title in lists that stand side by side


def shown(text: str) -> str:
    """Somebody else's text on a terminal: without control characters, which could move the cursor or rename
    the window."""
    return "".join(char if char.isprintable() else " " for char in text)


def title_of(recommender: Recommender, item: str | None) -> str:
    number = None if item is None else recommender.items.number(item)
    return recommender.items.title(number) if number else ""


def named(recommender: Recommender, items: list[str]) -> str:
    return ", ".join(shown(title_of(recommender, item) or item) for item in items)


def print_json(rows: Any) -> None:
    for row in rows:
        print(json_text(row._asdict()))


def print_rows(head: list[str], rows: list[tuple[Any, ...]]) -> None:
    """A table in columns; the last one is of numbers."""
    cells = [head, *([shown(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    for row in cells:
        last = row[-1].rjust(widths[-1])
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), last]))


def print_side_by_side(recommender: Recommender, labelled: dict[str, Any], as_json: bool) -> None:
    """The LLM's ranking of a labelled session and the lists of the run's recommenders; * is the target."""
    if as_json:
        print(json_text(labelled))
        return
    unit = labelled.get("unit", "session")
    print(f"{unit} {shown(labelled['session'])}: {named(recommender, labelled['history'])}")
    # of an item: what came next in one training session with it, where anything did
    target = named(recommender, [labelled["target"]]) if labelled["target"] else "none"
    print(f"{'target' if unit == 'session' else 'next once'}: {target}; label: {labelled['key']}")
    lists = [labelled.get(name, []) for name in COLUMNS]
    rows = []
    for place in range(max(map(len, lists))):
        items = [one[place] if place < len(one) else None for one in lists]
        names = [
            "" if item is None else _short_title(recommender, item, labelled["target"]) for item in items
        ]
        rows.append((str(place + 1), *names))
    print_rows(["", *COLUMNS.values()], rows)
    if rules := labelled.get("hints"):
        print("hints in the prompt:", *(f"{k}. {shown(one)}" for k, one in enumerate(rules, 1)), sep="\n")


def _short_title(recommender: Recommender, item: str, target: str) -> str:
    name = title_of(recommender, item) or item
    return ("* " if item == target else "") + (name if len(name) <= _WIDTH else f"{name[: _WIDTH - 3]}...")
