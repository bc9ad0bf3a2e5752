"""Sessions that somebody else pickled: which column is what, found by recorded rankings that must agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.data.pickles import read_pickle
from recbole_alkd.settings.error import AlkdError

# Items of a session, its label among them: what the loader leaves, and the least of the paper's own data
# where a release has more.
MIN_ITEMS = (2, 5)
ASKED = 25  # items the LLM was asked for, and the recorded hit where the label is not among them


@dataclass(frozen=True)
class Recorded:
    """One line of the LLM's database. ``ranking``: item numbers."""

    session: int
    ranking: tuple[int, ...]
    hit: int


@dataclass(frozen=True)
class Layout:
    """One way to read the sessions.

    Attributes:
        items: column with a session's items, as lists, or one item a row.
        label: column with the item after them; None: the last of ``items`` is it.
        session: column with the session's number; None: the number of the row.
        raw: whether items are the ids of the title file; False: their numbers.
        min_items: shorter sessions are left out before the others are numbered.
    """

    items: str
    label: str | None = None
    session: str | None = None
    raw: bool = False
    min_items: int = field(default=MIN_ITEMS[0], compare=False)


class PickledTable:
    """The pickled sessions as columns.

    Attributes:
        columns: name -> values; a list of sessions is one column called ``items``.
    """

    def __init__(self, file: Path, tokens: Sequence[str]) -> None:
        import pandas as pd

        self.file, self.count = file, len(tokens)
        self.number_of = {token: number for number, token in enumerate(tokens)}
        content = read_pickle(file)
        if isinstance(content, pd.DataFrame):
            self.columns = {str(name): content[name].tolist() for name in content.columns}
        elif (
            isinstance(content, dict)
            and content
            and all(isinstance(v, (list, tuple, np.ndarray)) for v in content.values())
        ):
            self.columns = {str(name): list(values) for name, values in content.items()}
        elif isinstance(content, (list, tuple, pd.Series)):
            self.columns = {"items": list(content)}
        else:
            raise AlkdError(
                f"{file}: a table or a list of sessions is expected, found {type(content).__name__}"
            )
        if len({len(values) for values in self.columns.values()}) != 1 or not len(
            next(iter(self.columns.values()))
        ):
            raise AlkdError(f"{file}: columns of one length, with at least one row, are expected")

    def __str__(self) -> str:
        first = ", ".join(f"{name} ({values[0]!r:.60})" for name, values in self.columns.items())
        return f"{len(next(iter(self.columns.values()))):,} rows with the columns (first value) {first}"

    def lists(self, column: str) -> bool:
        return all(isinstance(value, (list, tuple, np.ndarray)) for value in self.columns[column])

    def layouts(
        self, items: str | None, label: str | None, session: str | None, raw: bool | None
    ) -> Iterator[Layout]:
        """The ways to read the table that agree with what is given."""
        for name in (items, label, session):
            if name is not None and name not in self.columns:
                raise AlkdError(f"{self.file}: no column {name!r}; there are {self}")
        names = [items] if items else list(self.columns)
        encodings = [False, True] if raw is None else [raw]
        scalars = [name for name in self.columns if not self.lists(name)]
        for name, code in product(names, encodings):
            others = [column for column in scalars if column != name]
            for number in [session] if session else [None, *others]:
                if not self.lists(name):
                    if number:  # one item a row: rows of a session are told by its number
                        yield Layout(name, None, number, code)
                    continue
                for target in (
                    [label] if label else [None, *(column for column in others if column != number)]
                ):
                    yield Layout(name, target, number, code)

    def sessions(self, layout: Layout) -> dict[int, list[int]] | None:
        """Session number -> item numbers, the label last; None when the table cannot be read so."""
        try:
            numbers = (
                None
                if layout.session is None
                else [_integer(value) for value in self.columns[layout.session]]
            )
            values = self.columns[layout.items]
            if not self.lists(layout.items):
                assert numbers is not None
                rows: dict[int, list[Any]] = {}
                for number, value in zip(numbers, values, strict=True):
                    rows.setdefault(number, []).append(value)
                return {number: items for number, row in rows.items() if (items := self._known(row, layout))}
            if layout.label is not None:
                values = [
                    [*row, label] for row, label in zip(values, self.columns[layout.label], strict=True)
                ]
            known_items = [self._known(row, layout) for row in values]
            if numbers is None:
                return dict(enumerate(items for items in known_items if items))
            pairs = {number: items for number, items in zip(numbers, known_items, strict=True) if items}
            return pairs if len(set(numbers)) == len(numbers) else None
        except (ValueError, TypeError):
            return None

    def _known(self, row: Sequence[Any], layout: Layout) -> list[int] | None:
        """The items of a session that have a row among the titles; None when its label has none,
        or too few are left."""
        items = [self._item(value, layout.raw) for value in row]
        if not items or items[-1] is None:
            return None
        known = [item for item in items if item is not None]
        return known if len(known) >= layout.min_items else None

    def _item(self, value: Any, raw: bool) -> int | None:
        if raw:
            return self.number_of.get(str(value))
        if _is_missing(value):
            return None
        number = _integer(value)
        return number if 0 <= number < self.count else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _integer(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or int(value) != value:
        raise ValueError
    return int(value)


def find_layout(
    table: PickledTable,
    wanted: tuple[str | None, str | None, str | None, bool | None],
    least: Sequence[int],
    recorded: Sequence[Recorded],
) -> tuple[Layout, dict[int, list[int]]]:
    """The way of reading under which every recorded hit is where the session's label stands in its
    ranking."""
    if not recorded:
        raise AlkdError(f"{table.file}: without recorded rankings there is nothing to check the sessions by")
    best, right = 0, []
    for min_items in least:
        for layout in table.layouts(*wanted):
            layout = replace(layout, min_items=min_items)
            sessions = table.sessions(layout)
            if sessions is None:
                continue
            agreeing = sum(_agrees(one, sessions) for one in recorded)
            best = max(best, agreeing)
            if agreeing == len(recorded):
                right.append((layout, sessions))
        if right:
            break
    if not right:
        raise AlkdError(
            f"{table.file}: no way of reading its sessions makes the hits of all {len(recorded):,} recorded "
            "rankings true (at most "
            f"{best:,}); there are {table}; name the columns (--items, --label, --session, --raw-ids, "
            "--min-items)"
        )
    if any(sessions != right[0][1] for _, sessions in right[1:]):
        raise AlkdError(
            f"{table.file}: its sessions can be read in {len(right)} ways "
            f"({', '.join(str(layout) for layout, _ in right)}); "
            "name the columns (--items, --label, --session, --raw-ids)"
        )
    return right[0]


def _agrees(one: Recorded, sessions: dict[int, list[int]]) -> bool:
    label = sessions.get(one.session, [-1])[-1]
    if label in one.ranking:
        return one.ranking.index(label) == one.hit
    return label >= 0 and one.hit >= min(len(one.ranking), ASKED)
