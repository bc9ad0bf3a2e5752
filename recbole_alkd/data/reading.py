"""Clicks as they are written: tokens as text, timestamps as exact integers, rows without an id counted.

RecBole itself keeps a timestamp as float32, whose steps are 64 to 128 seconds today,
and so loses the order of clicks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_alkd.data.row_blocks import Rows
from recbole_alkd.data.tables import MAX_ID, checked_id, clean_id, open_table, shown
from recbole_alkd.settings.error import AlkdError

# Timestamps without a unit stay the integers they are; with one they become nanoseconds.
TIME_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_SHOWN = 60  # characters of a text in a message
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Clicks:
    """The clicks of one file that have a user and an item, in file order.

    Attributes:
        path: the file.
        rows: how many rows it has, those without an id among them.
        blank: lines of the rows without a user or an item, which are left out.
        user, item: (N,) codes in order of first appearance.
        time: (N,) int64, in seconds as they stand in the file, or in nanoseconds when a time unit was given.
        line: (N,) the line of each.
        users, items: the tokens behind the codes.
        kinds: name -> RecBole's type, of all columns of an atomic file.
        others: name -> (N,) texts of the other columns that were asked for.
    """

    path: Path
    rows: int
    blank: list[int]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    line: np.ndarray
    users: list[str]
    items: list[str]
    kinds: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)

    def left_out(self) -> str | None:
        """What to say about rows without an id; None when there are none."""
        if not self.blank:
            return None
        return (
            f"{self.path.name}: {len(self.blank):,} of {self.rows:,} rows have no user or no item and are "
            "left out "
            f"(line {shown(self.blank)})"
        )


def read_clicks(
    path: Path,
    user_field: str,
    item_field: str,
    time_field: str,
    time_unit: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    others: Iterable[str] | None = (),
) -> Clicks:
    """Read the clicks of an ``.inter`` file or of CSV, plain text many lines at a time and all else line by
    line; memory holds codes and distinct tokens, not the text.

    An id is the text as it stands, without the spaces around it, whatever type the header gives it: ``007``,
    ``12.0`` and ``1e5`` stay what they are.

    Args:
        time_unit: of numbers; a date (ISO 8601, UTC where it names no zone) needs none.
        separator, encoding: as for ``open_table``.
        others: further columns to keep, those of them that are there. None: every other column.

    Raises:
        AlkdError: file, header, a line with another number of columns, or a timestamp that is not exact in
            whole seconds (in whole nanoseconds with ``time_unit``); it names file, line and value.
    """
    with open_table(path, separator, encoding) as table:
        at = (
            table.index(user_field, "the user or session"),
            table.index(item_field, "the item"),
            table.index(time_field, "the time that orders a session"),
        )
        wanted = table.columns if others is None else [name for name in others if name in table.columns]
        kept = {
            name: table.columns.index(name)
            for name in wanted
            if name not in (user_field, item_field, time_field)
        }
        read = _Read(path, at, list(kept.values()), time_unit, time_field)
        for rows in table.blocks:
            if not read.block(rows):
                for line, *row in zip(rows.lines, *rows.columns, strict=True):
                    read.row(line, row)
        kinds = dict(zip(table.columns, table.kinds, strict=False))
    user, item, time, lines = read.clicks()
    return Clicks(
        path=path,
        rows=len(user) + len(read.blank),
        blank=read.blank,
        user=user,
        item=item,
        time=time,
        line=lines,
        users=list(read.users.codes),
        items=list(read.items.codes),
        kinds=kinds,
        others=dict(zip(kept, read.others, strict=True)),
    )


class _Ids:
    """Codes of tokens in the order in which they are met; several texts may be one token."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._of_text: dict[str, int] = {}

    def known(self, text: str) -> int | None:
        return self._of_text.get(text)

    def add(self, text: str, token: str) -> int:
        code = self._of_text[text] = self.codes.setdefault(token, len(self.codes))
        return code

    def of(self, code: np.ndarray, texts: Sequence[str], tokens: Sequence[str]) -> np.ndarray:
        """The codes of rows, which ``code`` gives as places in ``texts``, distinct, and their ``tokens``."""
        found = np.zeros(len(texts), dtype=np.int64)
        for place in pd.unique(code).tolist():  # in the order of the rows
            known = self._of_text.get(texts[place])
            found[place] = self.add(texts[place], tokens[place]) if known is None else known
        return found[code]


class _Read:
    """What was read of a table of clicks.

    Args:
        at: columns of user, item and time. others: columns that are kept. The others as ``read_clicks`` has
            them.

    Attributes:
        users, items: the ids. blank: lines of rows without one. others: texts of the columns that are kept.
    """

    def __init__(
        self, path: Path, at: Sequence[int], others: Sequence[int], time_unit: str | None, time_field: str
    ) -> None:
        self.users, self.items = _Ids(), _Ids()
        self.blank: list[int] = []
        self.others: list[list[str]] = [[] for _ in others]
        self._path, self._at, self._others = path, at, others
        self._unit, self._time_field = time_unit, time_field
        self._factor = 1 if time_unit is None else TIME_UNITS[time_unit]
        self._rows = tuple(array("q") for _ in range(4))
        self._blocks: list[tuple[np.ndarray, ...]] = []

    def row(self, line: int, row: Sequence[str]) -> None:
        """Take a row; AlkdError for what is wrong with it."""
        at_user, at_item, at_time = self._at
        one, other = self.users.known(row[at_user]), self.items.known(row[at_item])
        if one is None or other is None:  # a text that is met for the first time
            token, clicked = (checked_id(row[k], self._path, line) for k in (at_user, at_item))
            if not token or not clicked:
                self.blank.append(line)
                return
            one, other = self.users.add(row[at_user], token), self.items.add(row[at_item], clicked)
        try:
            time = int(row[at_time]) * self._factor
        except ValueError:
            time = self._exact(row[at_time], line)
        if not -(2**63) <= time < 2**63:
            time = self._exact(row[at_time], line)
        for column, value in zip(self._rows, (one, other, time, line), strict=True):
            column.append(value)
        for at, texts in zip(self._others, self.others, strict=True):
            texts.append(row[at])

    def block(self, rows: Rows) -> bool:
        """Take many rows at once; False, and nothing is taken, where one of them needs a look by itself."""
        texts, lines = rows.columns[self._at[2]], np.array(rows.lines, dtype=np.int64)
        try:
            times = np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
        except (ValueError, OverflowError):  # such as dates
            return False
        if len(times) and max(int(times.max()), -int(times.min())) > (2**63 - 1) // self._factor:
            return False
        user_code, users = pd.factorize(np.array(rows.columns[self._at[0]], dtype=object))
        item_code, items = pd.factorize(np.array(rows.columns[self._at[1]], dtype=object))
        user_tokens, item_tokens = ([clean_id(text) for text in texts] for texts in (users, items))
        if max(map(len, (*user_tokens, *item_tokens)), default=0) > MAX_ID:
            return False
        there = np.array([bool(token) for token in user_tokens], dtype=bool)[user_code]
        there &= np.array([bool(token) for token in item_tokens], dtype=bool)[item_code]
        self._flush()
        self.blank += lines[~there].tolist()
        self._blocks.append(
            (
                self.users.of(user_code[there], users, user_tokens),
                self.items.of(item_code[there], items, item_tokens),
                times[there] * self._factor,
                lines[there],
            )
        )
        for at, kept in zip(self._others, self.others, strict=True):
            kept.extend(compress(rows.columns[at], there.tolist()))
        return True

    def clicks(self) -> list[np.ndarray]:
        """Codes of users and items, times and lines of all rows, (N,) each."""
        self._flush()
        return [np.concatenate(one) for one in zip(*self._blocks, strict=True)]

    def _flush(self) -> None:
        self._blocks.append(tuple(np.array(column, dtype=np.int64) for column in self._rows))
        self._rows = tuple(array("q") for _ in range(4))

    def _exact(self, text: str, line: int) -> int:
        return exact_time(text, self._unit, f"{self._path}, line {line}: {self._time_field}")


def exact_time(text: str, unit: str | None, where: str) -> int:
    """A timestamp that may not be one to Python's int: "881250949.0" is one, 881250949.5 needs a unit.

    Args:
        unit: of numbers, of ``TIME_UNITS``, or None. where: what a message begins with.

    Returns:
        seconds, or nanoseconds where there is a unit. AlkdError for what cannot be kept exactly in 64 bits.
    """
    factor = 1 if unit is None else TIME_UNITS[unit]
    try:
        value = _EXACT.multiply(_EXACT.create_decimal(text.strip()), Decimal(factor))
    except DecimalException:
        value = _date(text, unit, where)
    if not value.is_finite() or abs(value) >= 2**63:
        raise AlkdError(f"{where} {_shortened(text)} is out of range")
    if value != value.to_integral_value():
        if unit is None:
            raise AlkdError(
                f"{where} {_shortened(text)} is not an integer; "
                "give its time_unit (session_time_unit): s, ms, us or ns"
            )
        raise AlkdError(f"{where} {_shortened(text)} ({unit}) is finer than a nanosecond")
    return int(value)


def _date(text: str, unit: str | None, where: str) -> Decimal:
    """An ISO 8601 date in seconds since 1970, or in nanoseconds where numbers have a unit."""
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise AlkdError(
            f"{where} {_shortened(text)} is not a number that can be kept exactly, nor a date such as "
            "2011-12-09 12:50:00"
        ) from None
    since = (when if when.tzinfo else when.replace(tzinfo=timezone.utc)) - _EPOCH
    microseconds = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
    return Decimal(microseconds) * 1000 if unit else Decimal(microseconds) / 10**6


def _shortened(text: str) -> str:
    """A text of others in a message, which is one line that can be read."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"
